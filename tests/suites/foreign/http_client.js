// An HTTP client of Node, one claim per run: http_client.js HOST:PORT CLAIM [ROOTS]. The app is http_app.js.
//   agent    POSTs of an agent that keeps connections, with rests about as long as Node's servers keep theirs (5 s)
//   session  many streams of one HTTP/2 session: uploads, trailers, and a reset of the app's
//   tunnel   HTTPS to tcp:443 in tunnels that are asked for in HTTP/1.1 and in HTTP/2
'use strict';

const assert = require('assert');
const http = require('http');
const http2 = require('http2');
const https = require('https');
const tls = require('tls');
const { once } = require('events');

const [target, claim, roots] = process.argv.slice(2);
const [host, port] = target.split(':');
const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function post(agent, body) {
  await echo(http.request({ host, port, agent, method: 'POST', path: '/echo' }), body);
}

async function echo(request, body) {
  request.end(body);
  const [response] = await once(request, 'response');
  let text = '';
  for await (const piece of response) text += piece;
  assert.equal(response.statusCode, 200, text);
  assert.equal(text, body);
}

async function agent() {
  const agent = new http.Agent({ keepAlive: true });
  const clients = Array.from({ length: 60 }, async (_, client) => {
    for (let turn = 0; turn < 5; turn++) await post(agent, `${client}/${turn}`);
    for (const turn of [1, 2]) {
      await rest(4900 + 200 * Math.random());
      await post(agent, `rested ${client}/${turn}`);
    }
  });
  await Promise.all(clients);
  agent.destroy();
}

async function stream(session, headers, body) {
  const request = session.request(headers);
  request.end(body);
  let [status, bytes, trailers] = [0, 0, {}];
  request.on('response', (head) => { status = head[':status']; });
  request.on('trailers', (fields) => { trailers = fields; });
  request.on('data', (piece) => { bytes += piece.length; });
  request.on('error', () => {}); // its code says it
  await new Promise((resolve) => request.on('close', resolve));
  return { status, bytes, trailers, code: request.rstCode };
}

async function session() {
  const session = http2.connect(`http://${target}`);
  const body = Buffer.alloc(100000, 'u');
  const echo = () => stream(session, { ':path': '/echo', ':method': 'POST' }, body);
  for (let turn = 0; turn < 4; turn++) {
    const echoes = await Promise.all(Array.from({ length: 90 }, echo));
    for (const { status, bytes } of echoes) assert.deepEqual([status, bytes], [200, 100000]);
  }
  assert.equal((await stream(session, { ':path': '/trailers' })).trailers['x-checksum'], 'abc');
  const reset = await stream(session, { ':path': '/reset' });
  assert.equal(reset.code, http2.constants.NGHTTP2_ENHANCE_YOUR_CALM, 'what the app says with its reset is heard');
  session.close();
}

async function tunnel() {
  const ca = require('fs').readFileSync(roots);
  const over = async (socket, body) => {
    const secured = tls.connect({ socket, servername: 'tcp', ca });
    await once(secured, 'secureConnect');
    await echo(https.request({ createConnection: () => secured, method: 'POST', path: '/echo' }), body);
  };
  for (let turn = 0; turn < 20; turn++) {
    const request = http.request({ host, port, method: 'CONNECT', path: 'tcp:443' });
    request.end();
    const [response, socket] = await once(request, 'connect');
    assert.equal(response.statusCode, 200);
    await over(socket, 'one'.repeat(50000));
    socket.destroy();
  }
  const session = http2.connect(`http://${target}`);
  const streams = Array.from({ length: 20 }, async (_, number) => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'tcp:443' }, { endStream: false });
    const [head] = await once(stream, 'response');
    assert.equal(head[':status'], 200);
    await over(stream, `${number}`.repeat(50000));
    stream.close();
  });
  await Promise.all(streams);
  session.close();
}

({ agent, session, tunnel })[claim]().then(
  () => console.log('as claimed'),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
