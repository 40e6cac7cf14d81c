const WebSocket=require('ws');const crypto=require('crypto');
const ws=new WebSocket('ws://127.0.0.1:14340/chat',['chat.v1','chat.v2'],{maxPayload:0});
let n=0;const big=crypto.randomBytes(4e6);
ws.on('open',()=>{console.log('node open',ws.protocol,JSON.stringify(ws.extensions));ws.send('m0')});
ws.on('message',(d,b)=>{ if(b){ if(!big.equals(d)) throw 'big'; console.log('node big ok'); ws.close(1000,'bye'); return}
 if(d.toString()!=='m'+n) throw d; n++; if(n<1000) ws.send('m'+n); else {console.log('node 1000 ok'); ws.send(big)} });
ws.on('close',(c,r)=>console.log('node close',c,r.toString()));
ws.on('unexpected-response',(q,r)=>console.log('declined',r.statusCode));
