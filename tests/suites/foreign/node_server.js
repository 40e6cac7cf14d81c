const {WebSocketServer}=require('ws');
const w=new WebSocketServer({host:'127.0.0.1',port:18080,perMessageDeflate:true,handleProtocols:(p)=>p.has('chat.v2')?'chat.v2':false,maxPayload:0});
w.on('connection',ws=>ws.on('message',(d,b)=>ws.send(d,{binary:b})));
