// An HTTP app: http_app.js HOST PORT http|h2c|https [CERTIFICATE KEY]. Every path answers any method:
//   /echo         the request's body, streamed back
//   /seen         what arrived, as JSON, once all of it has
//   /trailers     a body and a trailer
//   /bytes?n=N    so many bytes
//   /slow?n=N     the same, read or sent in small pieces with rests between them; the request's body likewise
//   /stuck        nothing, ever: neither read nor answered
//   /reset        a piece of a body, then HTTP/2's ENHANCE_YOUR_CALM
//   /early        403 before the body has been read
//   others        "hello"
'use strict';

const { Readable } = require('stream');

const [host, port, version, certificate, key] = process.argv.slice(2);
const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function seen(request, response) {
  let bytes = 0;
  for await (const piece of request) bytes += piece.length;
  const { method, url, httpVersion, headers, trailers } = request;
  const body = JSON.stringify({ method, url, version: httpVersion, headers, trailers, bytes });
  response.setHeader('content-type', 'application/json');
  response.end(body + '\n');
}

async function slow(request, response, bytes) {
  for await (const piece of request) await rest(10);
  for (let left = bytes; left > 0; left -= 16384) {
    response.write(Buffer.alloc(Math.min(left, 16384), 's'));
    await rest(10);
  }
  response.end();
}

function* pieces(bytes) {
  for (let left = bytes; left > 0; left -= 65536) yield Buffer.alloc(Math.min(left, 65536), 'b');
}

function answer(request, response) {
  const url = new URL(request.url, 'http://app');
  const bytes = Number(url.searchParams.get('n') ?? 0);
  request.on('error', () => {});
  response.on('error', () => {});
  switch (url.pathname) {
    case '/echo':
      return request.pipe(response);
    case '/seen':
      return seen(request, response).catch(() => {});
    case '/trailers':
      response.setHeader('trailer', 'x-checksum');
      response.write('body');
      response.addTrailers({ 'x-checksum': 'abc' });
      return response.end();
    case '/bytes':
      request.resume();
      response.setHeader('content-length', bytes);
      return Readable.from(pieces(bytes)).pipe(response);
    case '/slow':
      return slow(request, response, bytes).catch(() => {});
    case '/stuck':
      return;
    case '/reset':
      response.write('piece');
      return setTimeout(() => response.stream.close(0xb), 50);
    case '/early':
      response.statusCode = 403;
      return response.end('no');
    default:
      request.resume();
      return response.end('hello\n');
  }
}

const read = require('fs').readFileSync;
const servers = {
  http: () => require('http').createServer(answer),
  h2c: () => require('http2').createServer(answer),
  https: () => require('https').createServer({ cert: read(certificate), key: read(key) }, answer),
};
const server = servers[version]();
server.listen({ host, port: Number(port), backlog: 4096 });
