// The page at `/`: reads the stream of frames and hands them to the room; asks for a key where one is wanted.
//
// Right means that it comes back alone: whatever ends the stream (a restart, a lost network, a computer that
// slept), it says so and tries again every second, for as long as it is open.

import { mount } from "./room.js";

const AGAIN_MILLISECONDS = 1000;
const SILENCE_MILLISECONDS = 10_000; // the server sends several frames a second: after this it is gone

const door = document.getElementById("door");
const place = document.getElementById("room");
const room = mount(place);

for (;;) {
  try {
    await follow();
  } catch {
    // what went wrong is not known to a script; that nothing comes any more is all there is to say
  }
  room.lose();
  await pause(AGAIN_MILLISECONDS);
}

/** Draw frames until the stream ends or falls silent. */
async function follow() {
  const giveUp = new AbortController();
  let silence = setTimeout(() => giveUp.abort(), SILENCE_MILLISECONDS);
  try {
    const answer = await fetch("/room/events", { cache: "no-store", signal: giveUp.signal });
    if (answer.status === 401) {
      clearTimeout(silence);
      await knock();
      return await follow();
    }
    show(place);
    if (!answer.ok) {
      room.say((await answer.json()).error.message);
      return await pause(5 * AGAIN_MILLISECONDS);
    }
    for await (const frame of framesOf(answer.body)) {
      clearTimeout(silence);
      silence = setTimeout(() => giveUp.abort(), SILENCE_MILLISECONDS);
      room.show(frame);
    }
  } finally {
    clearTimeout(silence);
  }
}

/** The frames of a stream of server-sent events, each one `data:` line and a blank one. */
async function* framesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) yield JSON.parse(event.slice("data: ".length));
  }
}

/** Ask for a key until one is right; the cookie that it is exchanged for is not for scripts to see. */
async function knock() {
  show(door);
  const field = document.getElementById("key");
  const refusal = document.getElementById("refusal");
  field.focus();
  for (;;) {
    await new Promise((done) => {
      door.onsubmit = (event) => {
        event.preventDefault();
        done();
      };
    });
    try {
      const answer = await fetch("/room/session", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ key: field.value.trim() }),
      });
      field.value = "";
      if (answer.ok) break;
      refusal.textContent = (await answer.json()).error.message;
    } catch {
      refusal.textContent = "The server does not answer; try again in a moment.";
    }
    field.focus();
  }
  refusal.textContent = "";
  show(place);
}

function show(part) {
  door.hidden = part !== door;
  place.hidden = part !== place;
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}
