// socket.cjs URL TOKEN [HEADER=VALUE…]: opens a WebSocket and prints what came of it: the
// echo of one message, or "refused". Node's own client, which checks the certificate.
'use strict';

const [url, token, ...more] = process.argv.slice(2);
const headers = Object.fromEntries(more.map((line) => line.split('=')));
if (token) headers['X-OpenClaw-Gateway-Token'] = token;

const socket = new WebSocket(url, { headers });
socket.onopen = () => socket.send('through nginx');
socket.onmessage = ({ data }) => {
  console.log(data);
  socket.close();
};
socket.onerror = () => {
  console.log('refused');
  process.exit();
};
