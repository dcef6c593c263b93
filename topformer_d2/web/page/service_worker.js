"use strict";
// Keeps the site's files, so that the page works offline, and answers with the headers that make
// it isolated from other sites, without which browsers give it no threads. A server that sends
// them itself, as `topformer web --serve` does, has threads at the first visit; others at the next.

const SITE = %SITE%; // {digest, shell, files, headers}, by topformer_d2/web/site.py
const PREFIX = `topformer web ${self.registration.scope} `;
const CACHE = PREFIX + SITE.digest;
const addressOf = (name) => new URL(name, self.registration.scope).href;
const FILES = new Set(SITE.files.map(addressOf));

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(SITE.shell.map((name) => new Request(addressOf(name), { cache: "reload" })));
    await self.skipWaiting();
  })());
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event, url = new URL(request.url);
  url.search = url.hash = "";
  const address = url.href === self.registration.scope ? addressOf("index.html") : url.href;
  if (request.method === "GET" && FILES.has(address)) event.respondWith(answer(address));
});

/** A file of the site: the kept one, else the server's, which is then kept. */
async function answer(address) {
  const cache = await caches.open(CACHE);
  let response = await cache.match(address);
  if (!response) {
    response = await fetch(address, { cache: "no-cache" });
    if (!response.ok) return response;
    // Where there is no room for it the page works all the same, but not offline.
    await cache.put(address, response.clone()).catch(() => {});
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(SITE.headers)) headers.set(name, value);
  return new Response(response.body, { status: response.status, headers });
}
