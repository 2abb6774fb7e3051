"use strict";

const element = (id) => document.getElementById(id);
const columns = ["kategorie", "artikel", "bewegungen", "zugang", "abgang", "saldo"];
const announceEvery = 10000; // A screen reader that speaks every step says nothing useful.
let source = null;
let announced = 0;

function say(text, now = false) {
  element("text").textContent = text;
  if (now || Date.now() - announced >= announceEvery) {
    element("live").textContent = text;
    announced = Date.now();
  }
}

function describe(job) {
  const percent = job.progress.percent;
  switch (job.state) {
    case "queued": return "Waiting for a worker.";
    case "retrying": return `Interrupted (${job.message}).`;
    case "failed": return `Failed. ${job.message}`;
    case "succeeded": return "Done.";
    default: return percent === null ? "Started."
      : `${percent.toFixed(0)} %: ${job.progress.done.toLocaleString()} of ${job.progress.total.toLocaleString()} movements read`
        + (job.attempt > 1 ? ` (attempt ${job.attempt}).` : ".");
  }
}

function show(job) {
  const bar = element("bar");
  if (job.progress.percent === null) bar.removeAttribute("value");
  else bar.value = job.progress.percent;
  const over = job.state === "succeeded" || job.state === "failed";
  say(describe(job), over);
  if (!over) return;
  if (source) source.close();
  element("start").querySelector("button").disabled = false;
  if (job.state === "failed" && job.progress.percent === null) bar.value = 0;
  if (job.state === "succeeded") showResult();
}

async function showResult() {
  const answer = await fetch(`/tasks/${location.hash.slice(1)}`);
  if (!answer.ok) return say("Done, but the result cannot be loaded; reload the page.", true);
  const rows = (await answer.json()).result.map((row) => {
    const line = document.createElement("tr");
    for (const name of columns) {
      const cell = document.createElement(name === "kategorie" ? "th" : "td");
      if (name === "kategorie") cell.scope = "row";
      cell.textContent = row[name];
      line.append(cell);
    }
    return line;
  });
  element("rows").replaceChildren(...rows);
  element("result").hidden = false;
  if (!rows.length) say("Done. There were no movements in that month.", true);
}

function follow(id) {
  if (source) source.close();
  element("job").hidden = false;
  element("result").hidden = true;
  element("bar").removeAttribute("value");
  source = new EventSource(`/tasks/${id}/events`);
  for (const name of ["snapshot", "progress"]) {
    source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  }
  source.addEventListener("error", () => {
    const gone = source.readyState === EventSource.CLOSED;
    say(gone ? "There is no such job any more." : "Connection lost; trying again.", gone);
    if (gone) element("start").querySelector("button").disabled = false;
  });
}

element("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  element("job").hidden = false;
  say("Starting.", true);
  try {
    const answer = await fetch("/tasks/reports/monatsbericht", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-") },
      body: JSON.stringify({ monat: element("month").value }),
    });
    const job = await answer.json();
    if (!answer.ok) throw new Error(typeof job.detail === "string" ? job.detail : "Give a month like 2026-10.");
    history.replaceState(null, "", `#${job.id}`);
    follow(job.id);
  } catch (error) {
    button.disabled = false;
    say(`Could not start: ${error.message}`, true);
  }
});

const lastMonth = new Date(new Date().setDate(0));
element("month").value ||= `${lastMonth.getFullYear()}-${String(lastMonth.getMonth() + 1).padStart(2, "0")}`;
if (/^#[0-9a-f-]{36}$/.test(location.hash)) follow(location.hash.slice(1));
