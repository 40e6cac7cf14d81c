// A gRPC client of @grpc/grpc-js, all kinds of calls in one run: grpc_client.js HOST:PORT. The app is grpc_app.py.
'use strict';

const assert = require('assert');
const grpc = require('@grpc/grpc-js');

const same = (value) => value;
const kind = (path, requestStream, responseStream) => ({
  path: `/t.T/${path}`, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
});
const Client = grpc.makeGenericClientConstructor({
  unary: kind('Unary', false, false),
  clientStream: kind('ClientStream', true, false),
  serverStream: kind('ServerStream', false, true),
  bidi: kind('Bidi', true, true),
}, 'T');
const client = new Client(process.argv[2], grpc.credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });

const unary = (text, options = {}) => new Promise((resolve, reject) =>
  client.unary(Buffer.from(text), new grpc.Metadata(), options, (error, answer) => (error ? reject(error) : resolve(answer.toString()))));

async function main() {
  const answers = await Promise.all(Array.from({ length: 300 }, (_, number) => unary(`${number}`)));
  answers.forEach((answer, number) => assert.equal(answer, `${number}`));

  const sum = await new Promise((resolve, reject) => {
    const call = client.clientStream((error, answer) => (error ? reject(error) : resolve(answer.toString())));
    for (let number = 0; number < 500; number++) call.write(Buffer.alloc(1000));
    call.end();
  });
  assert.equal(sum, '500:500000');

  let bytes = 0;
  for await (const message of client.serverStream(Buffer.from('300:20000'))) bytes += message.length;
  assert.equal(bytes, 6000000);

  const call = client.bidi();
  for (let number = 0; number < 100; number++) {
    call.write(Buffer.from(`${number}`));
    const [message] = await require('events').once(call, 'data');
    assert.equal(message.toString(), `${number}`);
  }
  call.end();

  await assert.rejects(unary('abort'), { code: grpc.status.FAILED_PRECONDITION, details: 'not today: ümläut %' });
  await assert.rejects(unary('hang', { deadline: Date.now() + 300 }), { code: grpc.status.DEADLINE_EXCEEDED });
  client.close();
  console.log('as claimed');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
