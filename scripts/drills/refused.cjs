// refused.cjs URL LOGIN SCREENSHOT [CHROMIUM-FLAG…]: somebody who is not let in.
'use strict';
const { drive, refused } = require('./browser.cjs');

const [url, login, shot, ...flags] = process.argv.slice(2);
drive(flags, (page) => refused(page, url, login, shot));
