// Observer and a game as the browser test meets them: `observer serve --demo`, and a plain socket.

import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const BINARY =
  process.env.OBSERVER_BIN ?? fileURLToPath(new URL('../../target/debug/observer', import.meta.url));

const START_WITHIN_MS = 30_000;
const STOP_WITHIN_MS = 20_000;
const ASK_EVERY_MS = 25;

/** Asks until the answer is truthy and returns it; `what` is named when none comes in time. */
export async function eventually(what, ask, withinMs = 10_000) {
  const until = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (until < performance.now()) throw new Error(`not within ${withinMs} ms: ${what}`);
    await sleep(ASK_EVERY_MS);
  }
}

/** Starts `observer serve --demo` on free ports; `ready` is what it wrote to ready.json. */
export async function startObserver() {
  const folder = await mkdtemp(join(tmpdir(), 'observer-browser-'));
  const log = await open(join(folder, 'output.log'), 'a');
  const free = '127.0.0.1:0';
  const child = spawn(BINARY, ['serve', '--demo'], {
    stdio: ['ignore', log.fd, log.fd],
    env: {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('OBSERVER_'))),
      OBSERVER_API__LISTEN: free,
      OBSERVER_GATEWAY__LISTEN: free,
      OBSERVER_GATEWAY__WS_LISTEN: free,
      OBSERVER_ADMIN__LISTEN: free,
      OBSERVER_STORE__DATA_DIR: join(folder, 'data'),
    },
  });
  let ended = null;
  child.on('error', (error) => (ended = error.message));
  child.on('exit', (code, signal) => (ended = `exit ${code ?? signal}`));
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);

  const output = () => readFile(join(folder, 'output.log'), 'utf8');
  const readReady = async () => {
    if (ended) throw new Error(`${BINARY}: ${ended}\n${await output()}`);
    const text = await readFile(join(folder, 'data', 'ready.json'), 'utf8').catch(() => '');
    return text.trimEnd().endsWith('}') && JSON.parse(text);
  };
  const stop = async () => {
    child.kill('SIGTERM');
    await eventually('observer ends', () => ended, STOP_WITHIN_MS).finally(kill);
    process.off('exit', kill);
    await log.close();
    await rm(folder, { recursive: true });
    return ended;
  };
  try {
    const ready = await eventually('data/ready.json', readReady, START_WITHIN_MS);
    return { ready, output, stop };
  } catch (error) {
    kill();
    throw error;
  }
}

/** A game on a plain socket, as a person with `nc` would be. `lines` has all that the server sent. */
export async function startGame(address, key) {
  const [host, port] = address.split(':');
  const socket = connect(Number(port), host);
  const lines = [];
  let started = '';
  socket.setEncoding('utf8').on('data', (text) => {
    const parts = (started + text).split('\n');
    started = parts.pop();
    lines.push(...parts);
  });
  socket.on('error', (error) => lines.push(`socket: ${error.message}`));
  const send = (line) => socket.write(`${line}\n`);
  send(`v:${key}`);
  await eventually('the game is signed in', () => lines[0]);
  return { lines, send, end: () => socket.destroy() };
}
