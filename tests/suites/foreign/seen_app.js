// An HTTP/1 app that writes down what it sees: seen_app.js HOST PORT FILE strict|lenient. A line of JSON for each request
// of which it has the whole body, before it answers.
'use strict';

const fs = require('fs');

const [host, port, file, mode] = process.argv.slice(2);
const out = fs.openSync(file, 'a');

async function answer(request, response) {
  let bytes = 0;
  for await (const piece of request) bytes += piece.length;
  const { method, url, headers, rawHeaders } = request;
  const fields = [];
  for (let i = 0; i < rawHeaders.length; i += 2) fields.push([rawHeaders[i].toLowerCase(), rawHeaders[i + 1]]);
  fs.writeSync(out, JSON.stringify({ method, target: url, host: headers.host ?? '', bytes, fields }) + '\n');
  response.end('seen\n');
}

const options = { insecureHTTPParser: mode === 'lenient', maxHeaderSize: 256 * 1024 };
const server = require('http').createServer(options, (request, response) => {
  request.on('error', () => {});
  response.on('error', () => {});
  answer(request, response).catch(() => {});
});
// Without this a CONNECT, or a wish for another protocol, would end the connection.
server.maxHeadersCount = 0;
server.listen({ host, port: Number(port) });
