// openclaw.cjs signed-in|unpaired|unknown URL SCREENSHOT SECRET [CHROMIUM-FLAG…]: opens
// OpenClaw's own page and watches what its WebSocket answers to whoever we are.
// `signed-in` wants hello-ok, `unpaired` wants it to know the person and to ask for
// pairing, `unknown` wants it to say that the proxy named nobody.
'use strict';
const { check, drive, settle, until } = require('./browser.cjs');

const [wanted, url, shot, secret, ...flags] = process.argv.slice(2);

function parsed(text) {
  try { return JSON.parse(text); } catch { return {}; }
}

drive(flags, async (page) => {
  const sockets = [];
  const frames = [];
  page.on('websocket', (socket) => {
    const received = [];
    sockets.push(received);
    socket.on('framesent', (frame) => frames.push(String(frame.payload)));
    socket.on('framereceived', (frame) => {
      frames.push(String(frame.payload));
      received.push(parsed(String(frame.payload)));
    });
  });
  // The answer to `connect` is the first one of a socket.
  const answer = (socket) => until(() => sockets[socket]?.find((message) => message.type === 'res'));
  const signedIn = async (socket) => {
    const first = await answer(socket);
    if (first.ok !== true || first.payload?.type !== 'hello-ok') throw new Error(JSON.stringify(first).slice(0, 600));
  };
  const refusedWith = (...codes) => async () => {
    const first = await answer(0);
    const text = JSON.stringify(first);
    if (first.ok !== false || !codes.every((code) => text.includes(code))) throw new Error(text.slice(0, 600));
  };

  await check('the page opens', async () => {
    const response = await page.goto(url);
    if (response.status() !== 200) throw new Error(`it was ${response.status()}`);
    if (!await page.evaluate(() => isSecureContext)) throw new Error('no secure context');
  });
  if (wanted === 'signed-in') {
    await check('its WebSocket answers hello-ok', () => signedIn(0));
    await settle(page);
    await check('nobody was asked for a token or for pairing', async () => {
      if (sockets.length === 0) throw new Error('there was no WebSocket');
      // hello-ok itself lists what can be called, pairing included.
      const asked = sockets.flat().find((message) => (message.type === 'event' && /pair/.test(message.event))
        || (message.ok === false && /PAIR|AUTH/i.test(JSON.stringify(message.error))));
      if (asked) throw new Error(JSON.stringify(asked).slice(0, 600));
      const gate = await page.locator('openclaw-login-gate:visible').allInnerTexts();
      if (gate.length) throw new Error(gate.join('\n'));
      const text = await page.evaluate(() => document.body.innerText);
      if (/approve this browser|devices approve|authentication required|token (missing|mismatch)/i.test(text)) throw new Error(text);
    });
    await page.screenshot({ path: shot });
    await check('after a reload it answers hello-ok again', async () => {
      const next = sockets.length;
      await page.reload();
      await signedIn(next);
    });
    await check("OpenClaw's secret never reached the browser", async () => {
      const kept = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.documentElement.outerHTML]));
      if (!frames.some((text) => text.includes('"connect"'))) throw new Error('no connect was seen');
      return ![...frames, kept].some((text) => text.includes(secret));
    });
  } else {
    if (wanted === 'unpaired') {
      await check('OpenClaw knows who it is and asks for pairing', refusedWith('NOT_PAIRED', 'PAIRING_REQUIRED'));
    } else {
      await check('OpenClaw says that the proxy named nobody', refusedWith('trusted_proxy_user_missing'));
    }
    await settle(page);
    await check('its page says so', () => page.locator('openclaw-login-gate:visible').count().then((count) => count === 1));
    await page.screenshot({ path: shot });
  }
});
