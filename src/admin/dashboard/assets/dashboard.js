// What is live on the dashboard. Without it every page still works: links, and forms that come back with a page.
"use strict";

(() => {
  const root = document.documentElement;
  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (remembered === "light" || remembered === "dark") root.dataset.theme = remembered;

  let stream = null;
  let paused = false;
  let waiting = null;
  let again = 0;
  let lost = 0;

  // Makes `old` like `now`, and leaves alone what is alike already: so the focus, a selection, an open <details> and
  // what somebody has typed stay where they are.
  function morph(old, now) {
    if (old.isEqualNode(now)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = now.nodeValue;
      return;
    }
    if (old.hasAttribute("data-keep")) return;
    const typed = old.matches("select, textarea, input:not([type=hidden])");
    if (typed) return;
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, now);
  }

  function morphChildren(old, now) {
    const wanted = new Set([...now.children].map((child) => child.id).filter(Boolean));
    const known = new Map([...old.children].filter((child) => wanted.has(child.id)).map((child) => [child.id, child]));
    let at = old.firstChild;
    for (const want of [...now.childNodes]) {
      const own = want.id && known.get(want.id);
      if (own) {
        if (own === at) at = at.nextSibling;
        else old.insertBefore(own, at);
        morph(own, want);
      } else if (at && !want.id && !at.id && at.nodeType === want.nodeType && at.nodeName === want.nodeName) {
        const next = at.nextSibling;
        morph(at, want);
        at = next;
      } else {
        old.insertBefore(want, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function put(html) {
    const main = document.getElementById("main");
    // The text is the server's own page, escaped there; a template element runs nothing.
    const template = document.createElement("template");
    template.innerHTML = html;
    localize(template.content);
    const scroll = [window.scrollX, window.scrollY];
    morphChildren(main, template.content);
    enliven(main);
    window.scrollTo(...scroll);
  }

  function say(text, on) {
    const link = document.getElementById("link");
    if (link.textContent !== text) link.textContent = text;
    link.hidden = !text;
    link.classList.toggle("on", on);
  }

  function close() {
    clearTimeout(again);
    clearTimeout(lost);
    if (stream) stream.close();
    stream = null;
  }

  function open() {
    close();
    const place = document.getElementById("main").dataset.live;
    if (!place || document.hidden) return;
    stream = new EventSource(place);
    stream.addEventListener("hello", (event) => {
      // Another process answers: its pages and its forms are other ones.
      if (event.data !== root.dataset.instance) location.reload();
    });
    stream.addEventListener("page", (event) => {
      clearTimeout(lost);
      root.dataset.live = "on";
      say(paused ? "Paused" : "Live", !paused);
      if (paused) waiting = event.data;
      else put(event.data);
    });
    stream.addEventListener("error", () => {
      root.dataset.live = "off";
      const refused = stream && stream.readyState === EventSource.CLOSED;
      // A moment's silence is none of a person's business.
      clearTimeout(lost);
      lost = setTimeout(() => say("Connection lost, trying again", false), 800);
      if (refused) again = setTimeout(rejoin, 3000);
    });
  }

  // The stream was answered with an error: either there are too many, or nobody is logged in any more.
  async function rejoin() {
    try {
      const answer = await fetch("/ui/setup", { redirect: "manual" });
      if (answer.type === "opaqueredirect") return location.reload();
    } catch { /* nobody is there yet */ }
    open();
  }

  function pause(button) {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused" : "Live", !paused);
    if (!paused && waiting) put(waiting);
    waiting = null;
  }

  // What is typed into a filter holds at once, and is in the address.
  function filter(form) {
    const query = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...query]) if (!value) query.delete(name);
    const text = query.toString();
    history.replaceState(null, "", text ? `${form.action}?${text}` : form.action);
    const main = document.getElementById("main");
    const live = new URL(main.dataset.live, location.href);
    const fresh = new URLSearchParams({ page: live.searchParams.get("page") });
    for (const [name, value] of query) fresh.set(name, value);
    main.dataset.live = `${live.pathname}?${fresh}`;
    open();
  }

  function forgetDone() {
    const main = document.getElementById("main");
    if (!main.dataset.live) return;
    const live = new URL(main.dataset.live, location.href);
    live.searchParams.delete("done");
    main.dataset.live = live.pathname + live.search;
    open();
  }

  async function copy(button) {
    const text = button.parentElement.querySelector("code, pre").textContent;
    let told = "Copied";
    try { await navigator.clipboard.writeText(text); } catch { told = "Not allowed"; }
    button.textContent = told;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  // Shows what only a script can do.
  function enliven(within) {
    for (const button of within.querySelectorAll("#pause[hidden], [data-copy][hidden]")) button.hidden = false;
  }

  const two = (number) => String(number).padStart(2, "0");
  const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const minute = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;

  // The name of the reader's time zone, such as GMT+7.
  function zone() {
    const parts = new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(new Date());
    return parts.find(({ type }) => type === "timeZoneName")?.value ?? "local time";
  }

  // Moments in the reader's own time; UTC stays in the title. What was done once is done again with the same result.
  function localize(within) {
    const today = day(new Date());
    for (const part of within.querySelectorAll("time[datetime]")) {
      const iso = part.getAttribute("datetime");
      const date = new Date(iso);
      if (Number.isNaN(date.getTime())) continue;
      const title = `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
      if (part.title !== title) part.title = title;
      const shape = /^(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d+)?$/.exec(part.textContent);
      if (!shape) continue;
      const time = `${minute(date)}:${two(date.getSeconds())}${shape[1] ?? ""}`;
      const text = day(date) === today ? time : `${day(date)} ${time}`;
      if (part.textContent !== text) part.textContent = text;
    }
    for (const part of within.querySelectorAll("[data-utc]")) {
      const date = new Date(part.dataset.utc);
      const local = (_, seconds) => minute(date) + (seconds ? `:${two(date.getSeconds())}` : "");
      const text = part.textContent.replace(/^\d\d:\d\d(:\d\d)?(?: UTC)?/, local);
      if (part.textContent !== text) part.textContent = text;
    }
    for (const part of within.querySelectorAll(".zone, th > .soft")) {
      if (part.textContent === "UTC") part.textContent = zone();
    }
  }

  function theme(button) {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds for this page */ }
    name(button);
  }

  function name(button) {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    name(button);
    const keys = document.getElementById("show-keys");
    if (keys) keys.hidden = false;
    localize(document);
    enliven(document);
    open();
    // What was done is said for a moment, and not again when the page is loaded anew.
    const here = new URL(location.href);
    if (here.searchParams.has("done")) {
      here.searchParams.delete("done");
      history.replaceState(null, "", here);
      setTimeout(forgetDone, 12000);
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "theme") theme(button);
    else if (button.id === "show-keys") document.getElementById("keys").showModal();
    else if (button.hasAttribute("data-close")) button.closest("dialog").close();
    else if (button.id === "pause") pause(button);
    else if (button.hasAttribute("data-copy")) copy(button);
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) event.preventDefault();
    else if (form.hasAttribute("data-filter") && stream) {
      event.preventDefault();
      filter(form);
    }
  });
  // Keys lead to the page's search field, to another page, and to a list of the keys; in a field they are letters.
  const pages = { o: "/", r: "/ui/requests", t: "/ui/tokens", p: "/ui/providers" };
  let began = -Infinity;
  document.addEventListener("keydown", (event) => {
    const keys = document.getElementById("keys");
    if (!keys || keys.open || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const place = event.timeStamp - began < 1500 ? pages[event.key] : undefined;
    began = event.key === "g" ? event.timeStamp : -Infinity;
    const field = document.getElementById("q");
    if (place) location.assign(place);
    else if (event.key === "?") keys.showModal();
    else if (event.key === "/" && field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });
  let typing = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form || !form.hasAttribute("data-filter")) return;
    clearTimeout(typing);
    typing = setTimeout(() => filter(form), 250);
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
})();
