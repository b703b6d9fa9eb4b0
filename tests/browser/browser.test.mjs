// The page in a real browser against the real program: lines run, pause, an edit is taken.
//
// Environment: OBSERVER_BIN (the program), OBSERVER_CHROMIUM (the browser), OBSERVER_SHOTS (a folder
// for screenshots, to be looked at; a temporary one otherwise).

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, afterEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { chromium } from 'playwright-core';

import { eventually, startGame, startObserver } from './observer.mjs';

const CHROMIUM = process.env.OBSERVER_CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** How long a paused list is watched for rows that must not come: several frames of the stream. */
const WATCH_PAUSED_MS = 1_500;

let observer, profile, browser, shots, page;
let complaints = [];

before(async () => {
  shots = process.env.OBSERVER_SHOTS ?? (await mkdtemp(join(tmpdir(), 'observer-shots-')));
  await mkdir(shots, { recursive: true });
  observer = await startObserver();
  profile = await mkdtemp(join(tmpdir(), 'observer-chromium-'));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    args: ARGS,
    chromiumSandbox: false,
    viewport: { width: 1400, height: 900 },
  });
  browser.setDefaultTimeout(10_000);
});

after(async () => {
  console.log(`screenshots: ${shots}`);
  await browser?.close();
  if (profile) await rm(profile, { recursive: true, force: true });
  if (observer) assert.equal(await observer.stop(), 'exit 0');
});

beforeEach(async () => {
  complaints = [];
  page = await browser.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`page: ${error}`));
  // Some violations never reach the console as errors; the event tells of all.
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      console.error(`CSP: ${event.violatedDirective} blocked ${event.blockedURI}`);
    });
  });
});

afterEach(async (context) => {
  await shoot(`${context.name.replaceAll(/\W+/g, '-')}-end`);
  await page.close();
  assert.deepEqual(complaints, [], 'the browser has nothing to complain about');
});

const $ = (id) => page.getByTestId(id);
const shoot = (name) => page.screenshot({ path: join(shots, `${name}.png`) });
const home = () => `${observer.ready.api}/`;
const openConsole = (key) => page.goto(`${home()}#key=${key}`);
const variable = (name) => page.locator(`[data-testid="var-row"][data-name="${name}"]`);

/** The rows on the screen. The list is virtual: what changes is which rows, not how many. */
const rows = async () => (await $('log-row').allTextContents()).join('\n');

const newWhilePaused = async () => {
  const words = (await $('log-paused-bar').textContent()) ?? '';
  return Number(/([\d.,\s]+)new/.exec(words)?.[1].replaceAll(/\D/g, '') ?? 0);
};

/** Text, title and data-state of an element: a state is shown in words, icon and colour. */
const saysOf = (locator) =>
  locator.evaluate((element) => [element.dataset.state, element.title, element.textContent].join(' '));

async function save(name, value) {
  const row = variable(name);
  await row.getByTestId('var-input').fill(value);
  await row.getByTestId('var-save').click();
}

/** A number of the demo that may be edited, and a value that it does not have. */
async function editable() {
  const { api: base, key } = observer.ready;
  const address = new URL(`/api/v1/projects/${key}/vars`, base);
  return eventually('the demo has a number to edit', async () => {
    const vars = await (await fetch(address)).json();
    const reported = vars.devices.flatMap((device) => device.reported);
    const numbers = reported.filter(
      ({ type, access }) => (type === 'float' || type === 'integer') && access !== 'watch',
    );
    const found = numbers.find(({ name }) => name === 'gravity') ?? numbers[0];
    if (!found) return null;
    const { name, value, min = 0, max = Number(min) + 100 } = found;
    const middle = Math.round((Number(min) + Number(max)) / 2);
    return { name, value: String(middle === Number(value) ? middle + 1 : middle) };
  });
}

test('a person signs in with the key by hand', async () => {
  await page.goto(home());
  await shoot('sign-in');
  await $('signin-key').fill(observer.ready.key);
  await $('signin-submit').click();
  await $('log-list').waitFor();
  await $('log-row').first().waitFor();
});

test('lines run, pause and go on', async () => {
  await openConsole(observer.ready.key);
  await $('device-row').first().waitFor();
  await $('log-row').first().waitFor();
  const first = await rows();
  await eventually('further rows come', async () => (await rows()) !== first);
  await shoot('console');

  await $('log-pause').click();
  await $('log-paused-bar').waitFor();
  const paused = await rows();
  await eventually('new rows are counted', async () => 0 < (await newWhilePaused()));
  await sleep(WATCH_PAUSED_MS); // Nothing may happen: there is nothing else to wait for.
  assert.equal(await rows(), paused, 'no row moves while paused');
  await shoot('paused');

  await $('log-resume').click();
  await $('log-paused-bar').waitFor({ state: 'hidden' });
  await eventually('rows run again', async () => (await rows()) !== paused);
});

test('an edit reaches the demo and is shown as applied', async () => {
  await openConsole(observer.ready.key);
  const { name, value } = await editable();
  await variable(name).waitFor();
  await save(name, value);
  const row = variable(name);
  const sees = async (id) => Number(await row.getByTestId(id).first().textContent());
  await eventually('wanted', async () => (await sees('var-wanted')) === Number(value));
  await eventually('on the device', async () => (await sees('var-device')) === Number(value));
  await eventually('applied', async () => /applied/i.test(await saysOf(row.getByTestId('var-state').first())));
  await shoot('applied');
});

/** Asks the api with a JSON body; fails unless it answers 200. */
async function ask(method, path, body) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(new URL(path, home()), { method, headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 200, `${method} ${path}: ${await answer.clone().text()}`);
  return answer.json();
}

async function newKey() {
  const { token } = await (await fetch(new URL('/users/tokens', home()))).json();
  await ask('POST', '/users/tokens', { token });
  return token;
}

test('a game in a page sends a line and gets an edit, with the lines of the README', async () => {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const [, script] = /```js\n(const game = new WebSocket[^]*?)```/.exec(readme);
  const key = await newKey();
  const ours = script.replace('ws://127.0.0.1:6669/device', observer.ready.game_ws).replace('demo00000000', key);
  await openConsole(key);
  const game = await browser.newPage(); // Of no origin at all: any may connect.
  const said = [];
  game.on('console', async (message) => said.push(await Promise.all(message.args().map((arg) => arg.jsonValue()))));
  try {
    await game.evaluate(ours);
    await $('log-row').filter({ hasText: 'hello from a browser' }).waitFor();
    const edits = [{ name: 'gravity', type: 'float', value: '3.5' }];
    await ask('PATCH', `/api/v1/projects/${key}/vars`, { edits });
    const [edit] = await eventually('the edit is in the game', () => said.length && said);
    assert.deepEqual(edit, ['edit', edits]);
  } finally {
    await game.close();
  }
});

test('what a game sends by hand is on the page, and what the page sets is in the game', async () => {
  const key = await newKey();
  await openConsole(key);
  const game = await startGame(observer.ready.game, key);
  try {
    game.send(`i:${key}:[{"name":"gravity","type":"float","value":"9.8"}]`);
    await variable('gravity').waitFor();

    const sent = performance.now();
    game.send(`l:${key}:{"message":"hello from nc"}`);
    await $('log-row').filter({ hasText: 'hello from nc' }).waitFor();
    const tookMs = performance.now() - sent;
    assert.ok(tookMs < 1_000, `the line took ${tookMs} ms to the page`);

    await save('gravity', '3.5');
    const start = `v:${key}:`;
    const line = await eventually('the callback', () => game.lines.find((line) => line.startsWith(start)));
    const vars = JSON.parse(Buffer.from(line.slice(start.length), 'base64').toString());
    assert.deepEqual(vars, [{ name: 'gravity', type: 'float', value: '3.5' }]);
    await shoot('by-hand');
  } finally {
    game.end();
  }
});

test('the page explains the protocol with the own key', async () => {
  await openConsole(observer.ready.key);
  await $('nav-connect').click();
  const lines = (await $('connect-nc').first().textContent()) ?? '';
  assert.ok(lines.includes(observer.ready.key), lines);
  await shoot('connect');
});
