// jupyter.cjs URL SCREENSHOT: runs a notebook cell in JupyterLab, as whoever we are.
'use strict';
const { check, drive, until } = require('./browser.cjs');

const [url, shot] = process.argv.slice(2);

drive([], async (page) => {
  const sockets = [];
  const posts = [];
  page.on('websocket', (socket) => {
    const seen = { url: socket.url(), received: 0 };
    sockets.push(seen);
    socket.on('framereceived', () => { seen.received += 1; });
  });
  page.on('response', (response) => {
    if (response.request().method() === 'POST') posts.push([new URL(response.url()).pathname, response.status()]);
  });

  await check('the page opens without a token', async () => {
    const response = await page.goto(`${url}/lab`);
    if (response.status() !== 200) throw new Error(`it was ${response.status()}`);
    await page.locator('.jp-LauncherCard[data-category="Notebook"]').first().click({ timeout: 60000 });
  });
  await check('a notebook is made and its kernel started (POST with XSRF token)', async () => {
    for (const path of ['/api/contents', '/api/sessions']) {
      const [, status] = await until(() => posts.find(([seen]) => seen === path));
      if (status !== 201) throw new Error(`POST ${path}: ${status}`);
    }
  });
  await check('a cell runs: print(6*7) shows 42', async () => {
    await page.locator('.jp-Notebook .cm-content').first().click();
    await page.keyboard.type('print(6*7)');
    await page.keyboard.press('Shift+Enter');
    await page.locator('.jp-OutputArea-output pre', { hasText: /^42\s*$/ }).waitFor({ timeout: 60000 });
  });
  await check('its output came through a WebSocket', () =>
    sockets.some((socket) => /\/api\/kernels\/[^/]+\/channels/.test(socket.url) && socket.received > 0));
  await page.screenshot({ path: shot });

  // JupyterLab's own protection must still hold behind the gateway: same origin,
  // same person, but no proof that the page itself sent it.
  const post = (token) => page.evaluate(async (token) => {
    const cookie = document.cookie.split('; ').find((one) => one.startsWith('_xsrf='));
    const headers = { 'content-type': 'application/json' };
    if (token) headers['X-XSRFToken'] = cookie.slice('_xsrf='.length);
    const answer = await fetch('/api/contents', { method: 'POST', headers, body: '{"type":"file","ext":".txt"}' });
    return [answer.status, await answer.text()];
  }, token);
  await check('without the XSRF token JupyterLab itself refuses', async () => {
    const [status, text] = await post(false);
    if (status !== 403 || !text.includes('_xsrf')) throw new Error(`${status} ${text}`);
  });
  await check('with it the same request makes a file', async () => {
    const [status, text] = await post(true);
    if (status !== 201) throw new Error(`${status} ${text}`);
  });
});
