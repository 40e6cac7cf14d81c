// A WebSocket client of the library ws: ws_client.js HOST:PORT. The app is ws_app.js or ws_app.py.
'use strict';

const assert = require('assert');
const { once } = require('events');
const WebSocket = require('ws');

const [target] = process.argv.slice(2);

async function one(number) {
  const socket = new WebSocket(`ws://${target}/chat`);
  await once(socket, 'open');
  for (let turn = 0; turn < 20; turn++) {
    socket.send(`${number}/${turn}`);
    const [message] = await once(socket, 'message');
    assert.equal(message.toString(), `${number}/${turn}`);
  }
  socket.send('bye');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, reason.toString()], [4001, 'as you wish']);
}

Promise.all(Array.from({ length: 50 }, (_, number) => one(number))).then(
  () => console.log('as claimed'),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
