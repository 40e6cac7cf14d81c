// A WebSocket app of the library ws: ws_app.js HOST PORT. It sends every message back; "bye" closes with 4001.
'use strict';

const { WebSocketServer } = require('ws');

const [host, port] = process.argv.slice(2);
const server = new WebSocketServer({ host, port: Number(port), maxPayload: 64 << 20 });
server.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (message, isBinary) => {
    if (message.toString() === 'bye') socket.close(4001, 'as you wish');
    else socket.send(message, { binary: isBinary });
  });
});
