// SPDX-License-Identifier: MIT OR Apache-2.0

// An HTTP server for Node.js that counts in Redis: it knows nothing of Mayfly. Redis is REDIS=HOST:PORT; the port is
// its argument.
//
// It connects when it starts, and again when the connection is lost: after a reset that is in every request.
//
//     .../count?KEY  the new number
//     else           Hello World!

import http from "node:http";
import net from "node:net";

const [host, port] = process.env.REDIS.split(":");
let socket;
let waiting = [];

function connect() {
  const mine = net.connect({ host, port: Number(port), noDelay: true });
  let text = "";
  mine.setEncoding("latin1");
  mine.on("data", (part) => {
    const lines = (text + part).split("\r\n");
    text = lines.pop();
    for (const line of lines) waiting.shift()?.resolve(line);
  });
  const lose = (error) => {
    if (socket !== mine) return;
    socket = undefined;
    for (const { reject } of waiting.splice(0)) reject(error ?? new Error("the connection was lost"));
  };
  mine.on("error", lose);
  mine.on("close", () => lose());
  socket = mine;
}

function ask(command) {
  if (!socket) connect();
  return new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    socket.write(command);
  });
}

async function increment(key) {
  const command = `*2\r\n$4\r\nINCR\r\n$${key.length}\r\n${key}\r\n`;
  return (await ask(command).catch(() => ask(command))).slice(1);
}

const server = http.createServer(async (request, response) => {
  const [path, query] = request.url.split("?");
  try {
    response.end(path.endsWith("/count") ? await increment(query) : "Hello World!");
  } catch (error) {
    response.statusCode = 502;
    response.end(String(error));
  }
});

connect();
socket.once("connect", () => server.listen(Number(process.argv[2]), "127.0.0.1"));
