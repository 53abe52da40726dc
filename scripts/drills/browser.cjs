// A headless Chromium for the drills, and checks that print one line each.
'use strict';
const { chromium } = require(process.env.PLAYWRIGHT);

let failures = 0;

/// Runs a check; what it throws, or `false`, is a failure.
async function check(what, body) {
  try {
    if ((await body()) === false) throw new Error('it is not so');
    console.log(`ok   ${what}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${what}`);
    console.log(String(error.message).split('\n').slice(0, 8).map((line) => `       ${line}`).join('\n'));
  }
}

/// Opens a page, hands it to `body`, and ends the process with the right code.
async function drive(args, body) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', ...args],
  });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1200, height: 760 } });
    await body(await context.newPage());
  } catch (error) {
    failures += 1;
    console.log(`FAIL the browser: ${error.message}`);
  } finally {
    await browser.close();
  }
  process.exitCode = failures ? 1 : 0;
}

/// Waits until `test` answers something true.
async function until(test, ms = 20000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await test();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${ms / 1000} s`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

/// Waits until the page has fetched what it shows.
async function settle(page) {
  await page.waitForTimeout(2000);
  await page.waitForLoadState('networkidle', { timeout: 10000 }).catch(() => {});
}

/// The page that somebody is shown whom the gateway does not let in.
async function refused(page, url, login, shot) {
  await check(`${login} gets 403`, async () => {
    const response = await page.goto(url);
    if (response.status() !== 403) throw new Error(`it was ${response.status()}`);
  });
  await check('the page says who they are and why', async () => {
    const text = await page.evaluate(() => document.body.innerText);
    if (!text.includes(login) || !text.includes('not_allowed')) throw new Error(text);
  });
  await page.screenshot({ path: shot });
}

module.exports = { check, drive, refused, settle, until };
