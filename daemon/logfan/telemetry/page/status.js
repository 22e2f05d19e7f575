"use strict";
// Shows /status.json in the elements of the page, again and again. Elements are changed in place,
// so that scroll, focus and selection stay. What the daemon sends is set as text, never as HTML.

const SECONDS = 2, HIDDEN_SECONDS = 15, PATIENCE_SECONDS = 10;
const GLYPHS = { good: "✓", warn: "!", bad: "✕", stale: "?" };
const COLOURS = { good: "#1a7f37", warn: "#9a6700", bad: "#c62828", stale: "#5c6570" };
const SVG = "http://www.w3.org/2000/svg";

const $ = id => document.getElementById(id);

function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function fill(parent, template, items, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, at) => {
    const row = parent.children[at] ?? parent.appendChild($(template).content.firstElementChild.cloneNode(true));
    const texts = update(item, row);
    for (const node of row.querySelectorAll("[data-of]")) put(node, texts[node.dataset.of]);
  });
}

// Numbers and times for the eye, as `logfan status` has them.

const count = n => Math.abs(n) < 1e5 ? Math.round(n).toLocaleString("en")
  : Math.abs(n) < 1e6 ? `${Math.round(n / 1e3)}k` : `${(n / 1e6).toFixed(1)}M`;
const perSecond = n => Math.abs(n) >= 0.05 && Math.abs(n) < 9.95 ? n.toFixed(1) : count(n);
const whole = n => n.toLocaleString("en");
const size = n => n < 1024 ? `${n} B` : n < 1 << 20 ? `${Math.round(n / 1024)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`;
const clock = at => new Date(at * 1000).toLocaleTimeString("en-GB");

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min` + (s % 60 ? ` ${s % 60} s` : "");
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h` + (s % 3600 >= 60 ? ` ${Math.floor(s % 3600 / 60)} min` : "");
  return `${Math.floor(s / 86400)} days`;
}

function short(seconds) {
  if (seconds <= 0) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  return seconds < 1 ? `${Math.round(seconds * 1e3)} ms` : `${seconds.toFixed(1)} s`;
}

// What is stuck

const downSinks = status => status.sinks.filter(sink => sink.state !== "up");

function toneOf(status) {
  if (!status.ready) return status.state === "draining" ? "warn" : "bad";
  return downSinks(status).length ? "warn" : "good";
}

// What is to be seen first, and since when.
function inShort(status) {
  const down = downSinks(status).filter(sink => sink.required || status.ready);
  const ownFault = !["consuming", "waiting", "paused"].includes(status.state);
  if (ownFault || !down.length) return [status.state, status.since];
  if (down.length > 1) return [`${down.length} sinks are not up`, Math.min(...down.map(sink => sink.since))];
  return [`sink ${down[0].name} is ${down[0].state}`, down[0].since];
}

function showTone(tone, title) {
  const root = document.documentElement;
  put(document.querySelector("title"), `${GLYPHS[tone]} ${title}`);
  if (root.dataset.tone === tone && root.dataset.icon === tone) return;
  root.dataset.tone = root.dataset.icon = tone;
  const mark = document.querySelector(`.of-${tone}`).getAttribute("d");
  const icon = `<svg xmlns="${SVG}" viewBox="0 0 24 24"><circle cx="12" cy="12" r="12" fill="${COLOURS[tone]}"/>` +
    `<path d="${mark}" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round"/></svg>`;
  document.querySelector("link[rel=icon]").href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
}

function showVerdict(status) {
  const tone = toneOf(status), [what, since] = inShort(status);
  const verdict = `${status.ready ? tone === "warn" ? "Ready, but" : "Ready:" : "Not ready:"} ${what}`;
  showTone(tone, `${what} · logfan ${status.instance}`.trim());
  put($("instance"), status.instance);
  put($("about"), `${status.version} · process ${status.pid}, started ${duration(status.now - status.started_at)} ago` +
    (status.config ? ` · ${status.config}` : ""));
  put($("ready"), `${verdict} for ${duration(status.now - since)}`);
  put($("detail"), status.detail + (since === status.since ? "" : `, for ${duration(status.now - status.since)}`));
  $("detail").hidden = status.reasons.some(reason => reason.includes(status.detail));
  fill($("reasons"), "reason", status.reasons, text => ({ text }));
  // Read out where it changes, and only then.
  put($("announced"), verdict);
}

function drain(status) {
  const { published, acknowledged } = status.rate;
  if (status.queue_ready === 0) return ["–", "nothing waits"];
  if (status.queue_ready === null || published === null) return ["unknown", "not seen long enough yet"];
  if (status.time_to_drain_seconds !== null) return [duration(status.time_to_drain_seconds), `at ${perSecond(published)}/s published`];
  const grows = published - acknowledged;
  return ["never", grows >= 0.05 ? `it grows by ${perSecond(grows)}/s` : "it does not shrink"];
}

function showNumbers(status) {
  const { rate } = status, full = status.in_flight >= status.prefetch;
  const [left, why] = drain(status);
  const oldest = status.oldest_unacknowledged_seconds;
  const shown = {
    "received": `${perSecond(rate.received)}/s`,
    "received-note": `${whole(status.received)} in all\n${whole(status.redelivered)} redelivered`,
    "acknowledged": `${perSecond(rate.acknowledged)}/s`,
    "acknowledged-note": `${whole(status.acknowledged)} in all\n${whole(status.requeued)} handed back`,
    "in-flight": whole(status.in_flight),
    "in-flight-note": `of ${whole(status.prefetch)}, ${size(status.in_flight_bytes)}` + (oldest >= 1 ? `\nthe oldest for ${duration(oldest)}` : ""),
    "waiting": status.queue_ready === null ? "unknown" : whole(status.queue_ready),
    "waiting-note": `queue ${status.queue}` + (rate.published === null ? "" : `\n${perSecond(rate.published)}/s published`),
    "drain": left, "drain-note": why,
    "dead": status.dead_letters_waiting === null ? "unknown" : whole(status.dead_letters_waiting),
    "dead-note": "in the dead-letter queue",
  };
  for (const [id, text] of Object.entries(shown)) put($(id), text);
  set($("window"), "width", `${Math.min(100, 100 * status.in_flight / status.prefetch)}%`);
  $("in-flight").classList.toggle("alarm", full);
  $("drain").classList.toggle("alarm", left === "never");
  $("dead").classList.toggle("alarm", status.dead_letters_waiting > 0);
}

// Charts: lines over the last 10 minutes, newest at the right

const POINTS = 120;

function element(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return parent.appendChild(node);
}

const xOf = (at, length) => (POINTS - length + at) * 100 / (POINTS - 1);

// The line through the values; null is a gap. With `area`, what is below it.
function path(values, top, area) {
  let drawn = "", from = null;
  const end = () => { if (area && from !== null) drawn += `V100H${from}Z`; from = null; };
  values.forEach((value, at) => {
    if (value === null) return end();
    const x = xOf(at, values.length).toFixed(2), y = (100 - 96 * value / top).toFixed(2);
    drawn += from === null ? `M${x} ${y}` : `L${x} ${y}`;
    from ??= x;
  });
  end();
  return drawn;
}

// 1, 2 or 5 times a power of ten, so that the scale does not move with each value.
function scale(...series) {
  const most = Math.max(...series.flat().map(value => value ?? 0), 0) || 10;
  const ten = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map(n => n * ten).find(n => n >= most);
}

class Chart {
  // `series`: name to whether it is an area.
  constructor(id, series) {
    this.id = id;
    this.series = series;
    this.at = null;
    const box = $(id);
    this.top = box.appendChild(document.createElement("span"));
    this.top.className = "top";
    this.svg = element("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" }, box);
    for (const y of [4, 52, 100]) element("path", { class: "grid", d: `M0 ${y}H100` }, this.svg);
    this.paths = Object.entries(series).map(([name, area]) => [
      area ? element("path", { class: `area ${name}` }, this.svg) : null, element("path", { class: `line ${name}` }, this.svg),
    ]);
    this.cursor = element("path", { class: "cursor" }, this.svg);
    const axis = box.appendChild(document.createElement("p"));
    axis.className = "axis";
    for (const text of ["10 min ago", "5 min", "now"]) axis.appendChild(document.createElement("span")).textContent = text;
    box.addEventListener("pointermove", event => {
      const { left, width } = this.svg.getBoundingClientRect();
      this.point(Math.round((event.clientX - left) / width * (POINTS - 1)));
    });
    box.addEventListener("pointerleave", () => this.point(null));
  }

  point(at) {
    this.at = at;
    if (this.values) this.legend();
  }

  // `now`: what the legend has while nothing is pointed at.
  show(values, now, interval) {
    Object.assign(this, { values, now, interval });
    const top = scale(...Object.values(values));
    put(this.top, perSecond(top));
    Object.values(values).forEach((list, number) => {
      const [area, line] = this.paths[number];
      if (area) set(area, "d", path(list, top, true));
      set(line, "d", path(list, top, false));
    });
    const most = Object.entries(values).map(([name, list]) => `${name} at most ${perSecond(Math.max(0, ...list.map(v => v ?? 0)))}`);
    set(this.svg, "aria-label", `The last 10 minutes: ${most.join(", ")}.`);
    this.legend();
  }

  legend() {
    const length = Math.max(...Object.values(this.values).map(list => list.length));
    const at = this.at === null ? -1 : this.at - (POINTS - length);
    const pointed = at >= 0 && at < length;
    for (const name of Object.keys(this.series)) {
      const value = pointed ? this.values[name][at] : this.now[name];
      put($(`${this.id}-${name}`), value === null ? "unknown" : perSecond(value));
    }
    put($(`${this.id}-when`), pointed ? `${duration((length - 1 - at) * this.interval)} ago` : "now");
    set(this.cursor, "d", pointed ? `M${xOf(at, length)} 0V100` : "");
  }
}

const rates = new Chart("rates", { acknowledged: true, received: false });
const queue = new Chart("queue", { waiting: true });

function showCharts(status) {
  const { history, rate } = status;
  rates.show({ acknowledged: history.acknowledged, received: history.received }, rate, history.interval);
  queue.show({ waiting: history.queue_ready }, { waiting: status.queue_ready }, history.interval);
}

function spark(cell, values) {
  const svg = cell.firstElementChild ?? element("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" }, cell);
  const top = Math.max(1, ...values.map(value => value ?? 0));
  for (const name of ["area", "line"]) {
    const node = svg.querySelector(`.${name}`) ?? element("path", { class: `${name} written` }, svg);
    set(node, "d", path(values, top, name === "area"));
  }
  set(svg, "aria-label", `The last 10 minutes: at most ${perSecond(Math.max(0, ...values.map(v => v ?? 0)))} a second`);
}

// Sinks and what went wrong

function showSinks(status) {
  const full = status.in_flight >= status.prefetch;
  const urgency = sink => sink.state === "up" ? 2 : sink.required ? 0 : 1;
  const sinks = [...status.sinks].sort((a, b) => urgency(a) - urgency(b));
  fill($("sinks").tBodies[0], "sink", sinks, (sink, row) => {
    const holds = full && sink.required && sink.held >= status.in_flight;
    row.dataset.state = sink.state;
    row.classList.toggle("stuck", sink.required && sink.state !== "up");
    spark(row.querySelector(".spark"), status.history.sinks?.[sink.name] ?? []);
    const numbers = Object.fromEntries(["held", "retries", "written", "filtered", "rejected", "dead_lettered", "dropped"].map(key => [key, count(sink[key])]));
    for (const cell of row.querySelectorAll("td.n")) cell.classList.toggle("zero", !sink[cell.dataset.of === "batch" ? "batch_seconds" : cell.dataset.of]);
    return {
      ...numbers, name: sink.name, kind: sink.kind, state: sink.state, since: `for ${duration(status.now - sink.since)}`,
      tag: holds ? "holds the window" : sink.required ? "" : "not required", failure: sink.failure ?? "",
      rate: perSecond(sink.rate), batch: short(sink.batch_seconds),
    };
  });
}

function showMore(status) {
  const troubles = [...status.troubles].reverse();
  fill($("troubles"), "trouble", troubles, (one, row) => {
    row.dataset.level = one.level ?? "warning";
    set(row.querySelector("time"), "datetime", new Date(one.at * 1000).toISOString());
    const day = status.now - one.at > 86400 / 2 ? `${new Date(one.at * 1000).toLocaleDateString("en-CA")} ` : "";
    return { at: day + clock(one.at), ago: `${duration(status.now - one.at)} ago`, count: one.count > 1 ? `${whole(one.count)} times` : "", text: one.text };
  });
  fill($("letters"), "letter", status.dead_letters, one => ({ ...one, count: whole(one.count) }));
  const keys = Object.entries(status.config_keys);
  fill($("keys"), "key", keys, ([key, value]) => ({ key, value: String(Array.isArray(value) ? value.join(", ") : value ?? "") || "–" }));
  fill($("origins"), "origin", status.plugins, one => one);
  put($("config-note"), `${keys.length} keys, secrets hidden`);
  put($("plugins-note"), `${status.plugins.length} in use`);
  $("no-troubles").hidden = troubles.length > 0;
  $("no-letters").hidden = status.dead_letters.length > 0;
}

// Ask, show, wait

let timer = null, last = null;

function show(status) {
  if (last === null) for (const served of [$("reasons"), $("sinks").tBodies[0]]) served.replaceChildren();
  last = { at: performance.now(), status };
  showVerdict(status);
  showNumbers(status);
  showCharts(status);
  showSinks(status);
  showMore(status);
  $("charts").hidden = $("more").hidden = false;
  $("stale").hidden = true;
  put($("stale-why"), "");
  put($("updated"), `As of ${clock(status.now)}, every ${SECONDS} s.`);
}

function showStale(why) {
  showTone("stale", `no answer · logfan ${last?.status.instance ?? ""}`.trim());
  $("stale").hidden = false;
  put($("stale-why"), `The daemon does not answer: ${why}.`);
  put($("stale-age"), last === null ? "" : `What is below is ${duration((performance.now() - last.at) / 1000)} old.`);
}

async function ask() {
  const answer = await fetch("status.json", { signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

async function refresh() {
  clearTimeout(timer);
  timer = null;
  let status;
  try {
    status = await ask();
  } catch (error) {
    const known = { TimeoutError: `not within ${PATIENCE_SECONDS} s`, TypeError: "no connection" };
    showStale(known[error.name] ?? error.message);
  }
  timer = setTimeout(refresh, 1000 * (document.hidden ? HIDDEN_SECONDS : SECONDS));
  if (status) show(status);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && timer !== null) refresh(); });
document.documentElement.classList.add("live");
refresh();
