// A stand-in for the api service while the page is written: the contract's routes with made-up
// games in memory, and dist/ under the same Content-Security-Policy as the real one.
//
//   npm run mock -- [--port 8090] [--rate 20] [--devices 4]
//
// Keys: demo-key-001 has games, any other registered one starts empty. For trying things:
//   POST /mock/drop          cuts all streams (resumed afterwards)
//   POST /mock/reset         cuts all streams and forgets cursors (reset afterwards)
//   POST /mock/down?ms=8000  refuses everything for a while
//   POST /mock/theirs?name=gravity&value=4.0   somebody else's edit
//   POST /mock/gap?count=37  a gap
//   POST /mock/first?step=1..3&key=…  plays the first steps in an empty project
//   POST /mock/rate?n=10000  records a second

import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';
import { makeProject } from './game.mjs';

const { values: args } = parseArgs({
  options: {
    port: { type: 'string', default: '8090' },
    rate: { type: 'string', default: '20' },
    devices: { type: 'string', default: '4' },
  },
});
const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const CSP = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const KEY = /^[A-Za-z0-9_-]{12}$/;

const projects = new Map();
projects.set('demo-key-001', makeProject('demo-key-001', Number(args.devices), Number(args.rate)));
let downUntil = 0;

function json(response, status, body, type = 'application/json') {
  response.writeHead(status, { 'content-type': type, 'content-security-policy': CSP });
  response.end(JSON.stringify(body));
}

function problem(response, status, code, detail, more = {}) {
  json(response, status, { type: 'about:blank', title: code, status, code, detail, ...more }, 'application/problem+json');
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text === '' ? {} : JSON.parse(text);
}

async function users(request, response) {
  if (request.method === 'GET') return json(response, 200, { token: randomBytes(6).toString('hex') });
  const { token } = await body(request);
  if (!KEY.test(token ?? '')) return json(response, 400, { error: 'token is no key' });
  if (!projects.has(token)) projects.set(token, makeProject(token, 0, 0));
  return json(response, 200, { token });
}

async function api(request, response, url) {
  if (url.pathname === '/api/v1/server') {
    const game = { host: '127.0.0.1', port: 6667 };
    return json(response, 200, { name: 'observer', version: '0.1.0', game, profile: 'embedded', form: 'embedded' });
  }
  const [, key, what] = /^\/api\/v1\/projects\/([^/]+)\/(\w+)$/.exec(url.pathname) ?? [];
  const project = projects.get(key);
  if (!project) return problem(response, 404, 'unknown_project', 'no project has this key');
  if (what === 'logs') {
    const q = url.searchParams.get('q') ?? '';
    if ((q.split('"').length - 1) % 2 === 1) return problem(response, 422, 'bad_field', 'the phrase has no closing quote', { field: 'q' });
    return json(response, 200, project.logs(url.searchParams));
  }
  if (what === 'vars' && request.method === 'GET') return json(response, 200, project.vars());
  if (what === 'vars' && request.method === 'PATCH') {
    const answer = project.patch(await body(request));
    if (answer.revision !== undefined && !answer.code) return json(response, 200, answer);
    const { status, code, detail, ...more } = answer;
    return problem(response, status, code, detail, more);
  }
  return problem(response, 404, 'not_found', 'no such route');
}

function tricks(response, url) {
  const project = projects.get(url.searchParams.get('key') ?? 'demo-key-001');
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  if (url.pathname === '/mock/drop') for (const each of projects.values()) each.cut();
  else if (url.pathname === '/mock/reset') for (const each of projects.values()) each.forget();
  else if (url.pathname === '/mock/down') {
    downUntil = Date.now() + number('ms', 8000);
    for (const each of projects.values()) each.cut();
  } else if (url.pathname === '/mock/theirs') {
    const edit = { name: url.searchParams.get('name'), value: url.searchParams.get('value') };
    project.patch({ edits: [edit] }, 'Ben');
  } else if (url.pathname === '/mock/gap') project.gap(number('count', 37));
  else if (url.pathname === '/mock/rate') project.rate = number('n', 20);
  else if (url.pathname === '/mock/first') project.firstStep(number('step', 1));
  json(response, 200, { ok: true });
}

function file(response, path) {
  const safe = normalize(path).replace(/^(\.\.[/\\])+/, '');
  const full = join(DIST, safe === '/' ? 'index.html' : safe);
  if (!existsSync(full)) return problem(response, 404, 'not_found', 'run npm run build first');
  response.writeHead(200, { 'content-type': TYPES[extname(full)] ?? 'application/octet-stream', 'content-security-policy': CSP });
  return createReadStream(full).pipe(response);
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://mock');
  const run = async () => {
    if (Date.now() < downUntil) return problem(response, 503, 'store_down', 'the store is down');
    if (url.pathname.startsWith('/mock/')) return tricks(response, url);
    if (url.pathname === '/users/tokens') return users(request, response);
    if (url.pathname.startsWith('/api/')) return api(request, response, url);
    return file(response, url.pathname);
  };
  run().catch((error) => problem(response, 500, 'internal', String(error)));
});

const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://mock');
  const project = projects.get(/^\/api\/v1\/projects\/([^/]+)\/stream$/.exec(url.pathname)?.[1]);
  if (!project || Date.now() < downUntil) return socket.destroy();
  return sockets.handleUpgrade(request, socket, head, (viewer) => project.view(viewer, url.searchParams));
});
server.listen(Number(args.port), '127.0.0.1', () => {
  console.log(`mock api on http://127.0.0.1:${args.port}/#key=demo-key-001`);
});
