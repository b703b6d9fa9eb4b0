// Pictures of the page against a running mock, for eyes: `npm run mock & npm run shots -- /tmp/shots`.
// Fails when the page logged an error or broke its Content-Security-Policy.

import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const out = process.argv[2] ?? join(tmpdir(), 'shots');
const base = process.env.OBSERVER_API ?? 'http://127.0.0.1:8090';
mkdirSync(out, { recursive: true });

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'profile-')), {
  executablePath: '/usr/bin/chromium',
  args: FLAGS,
});
const errors = [];

async function open(name, size, scheme, path = '/#key=demo-key-001') {
  const page = await context.newPage();
  page.on('console', (message) => message.type() === 'error' && errors.push(`${name}: ${message.text()}`));
  page.on('pageerror', (error) => errors.push(`${name}: ${error.message}`));
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme: scheme });
  await page.goto(base + path);
  return page;
}

async function shoot(page, name) {
  await page.screenshot({ path: join(out, `${name}.png`) });
  console.log(name);
}

const post = (path) => fetch(base + path, { method: 'POST' });
const row = (page, name) => page.locator(`[data-testid=var-row][data-name=${name}]`);
const WIDE = { width: 1440, height: 900 };

for (const scheme of ['dark', 'light']) {
  let page = await open(`signin-${scheme}`, WIDE, scheme, '/');
  await shoot(page, `signin-${scheme}`);
  await page.close();

  page = await open(`wide-${scheme}`, WIDE, scheme);
  await page.waitForSelector('[data-testid=log-row]');
  await page.waitForTimeout(2500);
  await shoot(page, `wide-${scheme}`);

  await row(page, 'gravity').getByTestId('var-input').fill('3.0');
  await row(page, 'motd').getByTestId('var-input').fill('Hello there');
  await row(page, 'max_bodies').getByTestId('var-input').fill('5000');
  await page.locator('[data-level=error]').last().click();
  await page.waitForTimeout(700);
  await shoot(page, `draft-detail-${scheme}`);
  await row(page, 'gravity').getByTestId('var-input').press('Enter');
  await page.waitForTimeout(450);
  await shoot(page, `pending-${scheme}`);
  await page.waitForTimeout(1200);
  await row(page, 'gravity').getByTestId('var-state').click();
  await page.getByTestId('var-add').click();
  await shoot(page, `applied-${scheme}`);
  await page.close();

  page = await open(`middle-${scheme}`, { width: 1024, height: 768 }, scheme);
  await page.waitForTimeout(1500);
  await shoot(page, `middle-${scheme}`);
  await page.close();

  page = await open(`phone-${scheme}`, { width: 400, height: 800 }, scheme);
  await page.waitForTimeout(1500);
  await shoot(page, `phone-log-${scheme}`);
  await page.getByTestId('tab-vars').click();
  await shoot(page, `phone-vars-${scheme}`);
  await page.getByTestId('tab-devices').click();
  await shoot(page, `phone-devices-${scheme}`);
  await page.close();

  page = await open(`connect-${scheme}`, WIDE, scheme);
  await page.getByTestId('nav-connect').click();
  await page.waitForTimeout(300);
  await shoot(page, `connect-${scheme}`);
  await page.close();
}

// Conflict, lost stream, search, empty project: once each is enough.
let page = await open('states', WIDE, 'dark');
await page.waitForSelector('[data-testid=log-row]');
await row(page, 'gravity').getByTestId('var-input').fill('5.5');
await row(page, 'gravity').getByTestId('var-input').blur();
await post('/mock/theirs?name=gravity&value=4.0');
await post('/mock/gap?count=37');
await page.waitForTimeout(800);
await page.keyboard.press('Space');
await page.waitForTimeout(1500);
await shoot(page, 'conflict-paused-gap');
await page.getByTestId('log-range').selectOption('1h');
await page.getByTestId('log-filter').fill('NullReference');
await page.waitForTimeout(1000);
await shoot(page, 'search');
await page.getByTestId('log-filter').fill('"open phrase');
await page.waitForTimeout(800);
await shoot(page, 'search-bad');
await page.close();

page = await open('filter-bad', WIDE, 'light');
await page.waitForSelector('[data-testid=log-row]');
await page.getByTestId('log-filter').fill('"open phrase');
await page.waitForTimeout(800);
await shoot(page, 'filter-bad');
await page.close();

const { token } = await (await fetch(`${base}/users/tokens`)).json();
await fetch(`${base}/users/tokens`, { method: 'POST', body: JSON.stringify({ token }) });
page = await open('empty', WIDE, 'light', `/#key=${token}`);
await page.waitForTimeout(600);
await shoot(page, 'empty');
for (const step of [1, 2, 3]) await post(`/mock/first?step=${step}&key=${token}`);
await page.waitForTimeout(500);
await shoot(page, 'empty-compact');
await page.close();

// The browser logs each refusal that was provoked above; all else is a fault of the page.
const problems = errors.filter((error) => !error.includes('422'));
page = await open('lost', WIDE, 'dark');
await page.waitForSelector('[data-testid=log-row]');
await post('/mock/down?ms=4000');
await page.waitForTimeout(2500);
await shoot(page, 'lost');
await page.waitForTimeout(8000);
await shoot(page, 'resumed');
await context.close();

for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
