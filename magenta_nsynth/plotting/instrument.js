"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const MOST_VOICES = 24;
const GLIDE = 0.02; // seconds, the time constant of changes on the pad
const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const noteName = (note) => NAMES[note % 12] + (Math.floor(note / 12) - 1);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Where on the pad the points are, and what of them is heard at a place. */
class Grid {
  constructor(points) {
    this.points = points;
    this.xs = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
    this.ys = [...new Set(points.map((point) => point.y))].sort((a, b) => a - b);
  }

  /** The two neighbours of a place on an axis, and their shares. */
  static near(places, at) {
    if (places.length === 1) return [[0, 1]];
    let i = 0;
    while (i < places.length - 2 && at >= places[i + 1]) i++;
    const part = clamp((at - places[i]) / (places[i + 1] - places[i]), 0, 1);
    return [[i, 1 - part], [i + 1, part]];
  }

  /** The points around a place, with shares above 0 that add up to 1. */
  around(x, y) {
    const found = [];
    for (const [row, down] of Grid.near(this.ys, y)) {
      for (const [column, across] of Grid.near(this.xs, x)) {
        const share = down * across;
        if (share > 0) found.push([this.points[row * this.xs.length + column], share]);
      }
    }
    return found;
  }

  /** The sounds around a place for one of the pitches: sound -> share. */
  sounds(x, y, pitchIndex) {
    const shares = new Map();
    for (const [point, share] of this.around(x, y)) {
      const sound = point.sounds[pitchIndex];
      shares.set(sound, (shares.get(sound) || 0) + share);
    }
    return shares;
  }

  /** The share of each source at a place. */
  sources(x, y) {
    const total = data.names.map(() => 0);
    for (const [point, share] of this.around(x, y)) {
      point.weights.forEach((weight, i) => { total[i] += share * weight; });
    }
    return total;
  }
}

/** Plays notes in an AudioContext, or in an OfflineAudioContext. */
class Engine {
  constructor(context, buffers, grid) {
    Object.assign(this, {context, buffers, grid, voices: [], bend: 0});
    this.x = this.y = 0.5;
    this.attack = 0.005;
    this.release = 0.3;
    this.output = context.createGain();
    // Chords beyond full scale are rounded off: linear up to 0.7, below 1 everywhere.
    const width = 8;
    const limiter = context.createWaveShaper();
    limiter.curve = Float32Array.from({length: 16385}, (_, i) => {
      const value = width * (i / 8192 - 1);
      const over = Math.abs(value) - 0.7;
      return over <= 0 ? value : Math.sign(value) * (0.7 + 0.29 * Math.tanh(over / 0.29));
    });
    const narrow = context.createGain();
    narrow.gain.value = 1 / width;
    this.output.connect(narrow).connect(limiter).connect(context.destination);
    this.end = limiter;
    this.volume = 0.7;
  }

  /** At 0.7, eight of the loudest notes still reach the limiter's linear part alone. */
  set volume(value) {
    this.output.gain.value = 0.3 * value * value;
  }

  noteOn(note, velocity = 100, time = this.context.currentTime) {
    this.noteOff(note, time);
    this.voices = this.voices.filter((voice) => !(voice.endsAt <= time));
    while (this.voices.length >= MOST_VOICES) this.finish(this.voices.shift(), time, 0.01);
    let pitchIndex = 0;
    data.pitches.forEach((pitch, i) => {
      // As in the SFZ files: of two that are as near, the higher one.
      if (Math.abs(pitch - note) <= Math.abs(data.pitches[pitchIndex] - note)) pitchIndex = i;
    });
    const gain = this.context.createGain();
    const level = Math.pow(velocity / 127, 1.6);
    gain.gain.setValueAtTime(0, time);
    gain.gain.linearRampToValueAtTime(level, time + this.attack);
    gain.connect(this.output);
    const voice = {note, pitchIndex, time, level, attack: this.attack, gain, layers: new Map()};
    this.voices.push(voice);
    this.mix(voice, time);
    return voice;
  }

  noteOff(note, time = this.context.currentTime) {
    for (const voice of this.voices) {
      if (voice.note === note && voice.releasedAt === undefined) this.finish(voice, time, this.release);
    }
  }

  /** Lets a voice fade out. */
  finish(voice, time, seconds) {
    if (voice.endsAt <= time) return;
    const now = Math.max(time, voice.time);
    if (voice.releasedAt === undefined) {
      const reached = voice.level * Math.min(1, (now - voice.time) / voice.attack);
      voice.gain.gain.cancelScheduledValues(now);
      voice.gain.gain.setValueAtTime(reached, now);
    }
    voice.releasedAt = now;
    voice.gain.gain.setTargetAtTime(0, now, seconds / 5);
    voice.endsAt = now + 2 * seconds;
    for (const layer of voice.layers.values()) layer.source.stop(voice.endsAt);
  }

  allOff(time = this.context.currentTime) {
    for (const voice of this.voices) this.finish(voice, time, 0.03);
  }

  move(x, y, time = this.context.currentTime) {
    this.x = clamp(x, 0, 1);
    this.y = clamp(y, 0, 1);
    for (const voice of this.voices) {
      if (!(voice.endsAt <= time)) this.mix(voice, time);
    }
  }

  setBend(semitones, time = this.context.currentTime) {
    this.bend = semitones;
    for (const voice of this.voices) {
      for (const [sound, layer] of voice.layers) {
        layer.source.playbackRate.setTargetAtTime(this.rate(voice, sound), time, 0.005);
      }
    }
  }

  rate(voice, sound) {
    const {pitch, tune} = data.sounds[sound];
    return Math.pow(2, (voice.note + this.bend - pitch + tune / 100) / 12);
  }

  /** The second of a sound that a voice has reached; past its end if it has no loop. */
  position(voice, sound, time) {
    const {loop} = data.sounds[sound];
    const at = Math.max(0, time - voice.time) * this.rate(voice, sound);
    return loop && at > loop[1] ? loop[0] + (at - loop[0]) % (loop[1] - loop[0]) : at;
  }

  /** Starts, fades and stops the sounds of a voice, as the place on the pad wants. */
  mix(voice, time) {
    const shares = this.grid.sounds(this.x, this.y, voice.pitchIndex);
    const isNew = voice.layers.size === 0 && time <= voice.time;
    for (const [sound, share] of shares) {
      let layer = voice.layers.get(sound);
      if (!layer) {
        layer = this.start(voice, sound, time);
        if (!layer) continue;
        // Sounds of different mixes are not in phase: their powers add up.
        layer.gain.gain.value = isNew ? Math.sqrt(share) : 0;
      }
      if (!isNew) layer.gain.gain.setTargetAtTime(Math.sqrt(share), time, GLIDE);
    }
    for (const [sound, layer] of voice.layers) {
      if (shares.has(sound)) continue;
      layer.gain.gain.setTargetAtTime(0, time, GLIDE);
      layer.source.stop(time + 10 * GLIDE);
      voice.layers.delete(sound);
    }
  }

  start(voice, sound, time) {
    const {loop, seconds} = data.sounds[sound];
    const offset = this.position(voice, sound, time);
    if (offset >= seconds) return null;
    const source = this.context.createBufferSource();
    source.buffer = this.buffers[sound];
    source.playbackRate.value = this.rate(voice, sound);
    if (loop) Object.assign(source, {loop: true, loopStart: loop[0], loopEnd: loop[1]});
    const gain = this.context.createGain();
    source.connect(gain).connect(voice.gain);
    source.start(time, offset);
    if (voice.endsAt !== undefined) source.stop(voice.endsAt);
    const layer = {source, gain};
    voice.layers.set(sound, layer);
    source.onended = () => {
      gain.disconnect();
      if (voice.layers.get(sound) === layer) voice.layers.delete(sound);
      if (voice.layers.size === 0) {
        voice.gain.disconnect();
        this.voices = this.voices.filter((other) => other !== voice);
      }
    };
    return layer;
  }
}

/** Decodes all sounds, at the rate of the context. */
const decodeAll = (context) => Promise.all(
  data.sounds.map((sound) => context.decodeAudioData(bytesOf(sound.wav).buffer)),
);

// ---------------------------------------------------------------------- the page

const byId = (id) => document.getElementById(id);
const pad = byId("pad");
const field = byId("field");
const keys = byId("keys");
const grid = new Grid(data.points);
const context = new AudioContext({latencyHint: "interactive"});
const engine = new Engine(context, [], grid);
const ready = decodeAll(context).then((buffers) => { engine.buffers = buffers; });
const held = new Map(); // what holds a note down (a key, a pointer, MIDI) -> the note
const sustained = new Set();
const state = {base: 48, numKeys: 25, hold: false, pedal: false, shown: 60};

const press = async (who, note, velocity = Number(byId("velocity").value)) => {
  if (held.has(who) || note < 0 || note > 127) return;
  held.set(who, note);
  sustained.delete(note);
  mark(note);
  state.shown = note;
  if (context.state !== "running") await context.resume();
  await ready;
  if (held.get(who) !== note) return; // let go before the sounds were there
  engine.noteOn(note, velocity);
  draw();
};

const letGo = (who) => {
  const note = held.get(who);
  if (note === undefined) return;
  held.delete(who);
  if ([...held.values()].includes(note)) return;
  if (state.hold || state.pedal) sustained.add(note);
  else engine.noteOff(note);
  mark(note);
};

const dropSustained = () => {
  if (state.hold || state.pedal) return;
  for (const note of sustained) {
    engine.noteOff(note);
    sustained.delete(note);
    mark(note);
  }
};

const silence = () => {
  const notes = [...held.values(), ...sustained];
  held.clear();
  sustained.clear();
  engine.allOff();
  notes.forEach(mark);
};

const mark = (note) => {
  const isHeld = sustained.has(note) || [...held.values()].includes(note);
  keys.querySelector(`[data-note="${note}"]`)?.classList.toggle("held", isHeld);
};

// The pad

const mixText = () => {
  const parts = grid.sources(engine.x, engine.y)
    .map((share, i) => [Math.round(100 * share), data.names[i]])
    .filter(([percent]) => percent > 0);
  return parts.map(([percent, name]) => `${percent} % ${name}`).join(", ");
};

const move = (x, y) => {
  engine.move(x, y);
  const puck = byId("puck");
  puck.style.left = `${100 * engine.x}%`;
  puck.style.top = `${100 * engine.y}%`;
  const text = mixText();
  byId("mix").textContent = text;
  pad.setAttribute("aria-valuenow", Math.round(100 * engine.x));
  pad.setAttribute("aria-valuetext", text);
  draw();
};

const movePadTo = (event) => {
  const box = field.getBoundingClientRect();
  move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
};

const setUpPad = () => {
  for (const point of data.points) {
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.style.left = `${100 * point.x}%`;
    dot.style.top = `${100 * point.y}%`;
    field.prepend(dot);
  }
  const corners = [["top left", 0, 0], ["top right", 1, 0], ["bottom left", 0, 1], ["bottom right", 1, 1]];
  corners.forEach(([place, x, y], corner) => {
    const source = grid.sources(x, y).findIndex((share) => share > 0.99);
    pad.style.setProperty(`--p${corner}`, source < 0 ? "transparent" : `var(--c${source})`);
    // A single row or column is named once.
    if (source < 0 || (grid.ys.length === 1 && y === 1) || (grid.xs.length === 1 && x === 1)) return;
    const label = document.createElement("span");
    label.className = `corner ${place}`;
    label.textContent = label.title = data.names[source];
    pad.append(label);
  });
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    pad.focus({focusVisible: false});
    event.preventDefault();
    movePadTo(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (pad.hasPointerCapture(event.pointerId)) movePadTo(event);
  });
};

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

const moveByKey = (event) => {
  const step = event.shiftKey ? 0.01 : 0.05;
  if (event.key in ARROWS) {
    const [x, y] = ARROWS[event.key];
    move(engine.x + step * x, engine.y + step * y);
  } else if (event.key === "Home" && document.activeElement === pad) move(0.5, 0.5);
  else return false;
  return true;
};

// The keyboard

const COMPUTER_KEYS = ["KeyA", "KeyW", "KeyS", "KeyE", "KeyD", "KeyF", "KeyT", "KeyG", "KeyY", "KeyH",
  "KeyU", "KeyJ", "KeyK", "KeyO", "KeyL", "KeyP", "Semicolon"];
const letterOf = (code) => (code === "Semicolon" ? ";" : code.slice(3));
const isBlack = (note) => NAMES[note % 12].length > 1;

const buildKeys = () => {
  const focused = keys.contains(document.activeElement);
  keys.replaceChildren();
  const notes = Array.from({length: state.numKeys}, (_, i) => state.base + i).filter((note) => note <= 127);
  const numWhite = notes.filter((note) => !isBlack(note)).length;
  let white = 0;
  for (const note of notes) {
    const key = document.createElement("button");
    key.type = "button";
    key.className = "key";
    key.dataset.note = note;
    key.tabIndex = note === state.base ? 0 : -1;
    key.setAttribute("aria-label", noteName(note).replace("♯", " sharp "));
    if (data.pitches.includes(note)) key.classList.add("sampled");
    if (isBlack(note)) {
      key.classList.add("black");
      key.style.width = `${62 / numWhite}%`;
      key.style.left = `${(100 * white - 31) / numWhite}%`;
    } else {
      white++;
      if (note % 12 === 0) key.append(noteName(note));
    }
    const code = COMPUTER_KEYS[note - state.base];
    if (code) {
      const letter = document.createElement("span");
      letter.className = "letter touch-hidden";
      letter.textContent = letterOf(code);
      key.append(letter);
    }
    keys.append(key);
    mark(note);
  }
  if (focused) keys.firstChild.focus();
  byId("range").textContent = `${noteName(notes[0])} – ${noteName(notes.at(-1))}`;
};

const shift = (octaves) => {
  state.base = clamp(state.base + 12 * octaves, 0, 108);
  buildKeys();
  byId("said").textContent = `Keyboard from ${byId("range").textContent.replace("–", "to")}`;
};

/** Lower on a key is louder, around the velocity of the slider. */
const velocityAt = (event, key) => {
  const box = key.getBoundingClientRect();
  const part = clamp((event.clientY - box.top) / box.height, 0, 1);
  return clamp(Math.round(Number(byId("velocity").value) * (0.6 + 0.5 * part)), 1, 127);
};

const setUpKeys = () => {
  const keyAt = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest(".key");
  const play = (event) => {
    const key = keyAt(event);
    const who = `pointer ${event.pointerId}`;
    const note = key ? Number(key.dataset.note) : undefined;
    if (held.get(who) === note) return;
    letGo(who);
    if (key) press(who, note, velocityAt(event, key));
  };
  keys.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    keys.setPointerCapture(event.pointerId);
    play(event);
  });
  keys.addEventListener("pointermove", (event) => {
    if (keys.hasPointerCapture(event.pointerId)) play(event);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    keys.addEventListener(name, (event) => letGo(`pointer ${event.pointerId}`));
  }
  keys.addEventListener("contextmenu", (event) => event.preventDefault());
  // A screen reader clicks without a pointer or a key.
  keys.addEventListener("click", (event) => {
    if (event.detail !== 0 || held.has("focus")) return;
    const key = event.target.closest(".key");
    if (!key) return;
    press("click", Number(key.dataset.note));
    setTimeout(() => letGo("click"), 700);
  });
  keys.addEventListener("keydown", (event) => {
    const key = event.target.closest(".key");
    if (!key) return;
    const list = [...keys.children];
    const next = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (next) {
      const other = list[list.indexOf(key) + next];
      if (other) {
        key.tabIndex = -1;
        other.tabIndex = 0;
        other.focus();
      }
    } else if ((event.key === " " || event.key === "Enter") && !event.repeat) {
      press("focus", Number(key.dataset.note));
    } else if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
  });
  keys.addEventListener("keyup", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault(); // or the browser clicks the button
    letGo("focus");
  });
  keys.addEventListener("focusout", () => letGo("focus"));
};

const setUpComputerKeys = () => {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const number = COMPUTER_KEYS.indexOf(event.code);
    if (number >= 0) {
      if (!event.repeat) press(event.code, state.base + number);
    } else if (event.code === "KeyZ" || event.code === "KeyX") {
      if (!event.repeat) shift(event.code === "KeyX" ? 1 : -1);
    } else if (event.target.matches("input") || !moveByKey(event)) return;
    event.preventDefault();
  });
  addEventListener("keyup", (event) => letGo(event.code));
  addEventListener("blur", silence);
};

// MIDI

const onMidi = (event) => {
  const [status, first, second = 0] = event.data;
  const kind = status & 0xf0;
  const who = `midi ${status & 0x0f} ${first}`;
  if (kind === 0x90 && second > 0) press(who, first, second);
  else if (kind === 0x80 || kind === 0x90) letGo(who);
  else if (kind === 0xe0) engine.setBend(2 * ((second << 7 | first) - 8192) / 8192);
  else if (kind === 0xb0 && first === data.controllers.across) move(second / 127, engine.y);
  else if (kind === 0xb0 && first === data.controllers.down) move(engine.x, second / 127);
  else if (kind === 0xb0 && first === 64) {
    state.pedal = second >= 64;
    dropSustained();
  } else if (kind === 0xb0 && (first === 120 || first === 123)) silence();
};

const connectMidi = async () => {
  const said = byId("said");
  try {
    const access = await navigator.requestMIDIAccess();
    const listen = () => {
      const inputs = [...access.inputs.values()];
      for (const input of inputs) input.onmidimessage = onMidi;
      byId("midi").textContent = inputs.length ? `MIDI: ${inputs.map((input) => input.name).join(", ")}` : "MIDI: no device yet";
      said.textContent = byId("midi").textContent;
    };
    access.onstatechange = listen;
    listen();
  } catch (error) {
    byId("midi").textContent = "MIDI: not allowed";
    said.textContent = byId("midi").textContent;
  }
};

// The picture of what sounds

const canvas = byId("picture");
const images = data.sounds.map((sound) => {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${sound.picture}`;
  return image;
});
let isDrawing = false;

const draw = () => {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    drawNow();
    if (engine.voices.some((voice) => !(voice.endsAt <= context.currentTime))) draw();
  });
};

const drawNow = () => {
  const scale = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const ink = canvas.getContext("2d");
  ink.clearRect(0, 0, width, height);
  const now = context.currentTime;
  const voice = engine.voices.filter((one) => !(one.endsAt <= now)).at(-1);
  let pitchIndex = voice?.pitchIndex;
  if (pitchIndex === undefined) {
    pitchIndex = 0;
    data.pitches.forEach((pitch, i) => {
      if (Math.abs(pitch - state.shown) <= Math.abs(data.pitches[pitchIndex] - state.shown)) pitchIndex = i;
    });
  }
  const shares = [...grid.sounds(engine.x, engine.y, pitchIndex)];
  const longest = Math.max(...shares.map(([sound]) => data.sounds[sound].seconds));
  ink.globalCompositeOperation = "lighter";
  for (const [sound, share] of shares) {
    ink.globalAlpha = share;
    ink.drawImage(images[sound], 0, 0, width * data.sounds[sound].seconds / longest, height);
  }
  ink.globalCompositeOperation = "source-over";
  ink.globalAlpha = 1;
  const [main] = shares.reduce((best, one) => (one[1] > best[1] ? one : best));
  const {loop} = data.sounds[main];
  ink.fillStyle = "#fff";
  if (loop) {
    const [start, end] = loop.map((seconds) => width * seconds / longest);
    ink.globalAlpha = 0.55;
    ink.fillRect(start, height - 3 * scale, end - start, 3 * scale);
    ink.globalAlpha = 1;
  }
  if (voice) {
    const at = engine.position(voice, main, now);
    if (at <= longest) ink.fillRect(width * at / longest, 0, 2 * scale, height);
  }
  const sounding = [...new Set(engine.voices.filter((one) => one.releasedAt === undefined).map((one) => one.note))];
  byId("note").textContent = sounding.length
    ? sounding.sort((a, b) => a - b).map(noteName).join(" ")
    : noteName(data.pitches[pitchIndex]);
};

// The controls

const ENVELOPE = {
  attack: {of: (part) => 0.003 * Math.pow(2 / 0.003, part), start: 0.08},
  release: {of: (part) => 0.02 * Math.pow(5 / 0.02, part), start: 0.5},
};
const shownSeconds = (seconds) => (seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);

const setUpControls = () => {
  for (const [name, {of, start}] of Object.entries(ENVELOPE)) {
    const slider = byId(name);
    const change = () => {
      engine[name] = of(Number(slider.value));
      byId(`${name}-shown`).textContent = shownSeconds(engine[name]);
      slider.setAttribute("aria-valuetext", shownSeconds(engine[name]));
    };
    slider.value = start;
    slider.addEventListener("input", change);
    change();
  }
  for (const name of ["velocity", "volume"]) {
    const slider = byId(name);
    const change = () => {
      byId(`${name}-shown`).textContent = slider.value + (name === "volume" ? " %" : "");
      if (name === "volume") engine.volume = slider.value / 100;
    };
    slider.addEventListener("input", change);
    change();
  }
  byId("lower").addEventListener("click", () => shift(-1));
  byId("higher").addEventListener("click", () => shift(1));
  byId("silence").addEventListener("click", silence);
  byId("hold").addEventListener("click", () => {
    state.hold = !state.hold;
    byId("hold").setAttribute("aria-pressed", state.hold);
    dropSustained();
  });
  if (navigator.requestMIDIAccess) {
    byId("midi").hidden = false;
    byId("midi").addEventListener("click", connectMidi);
  }
};

/** As many octaves as keys of a finger's width fit. */
const layOut = () => {
  const octaves = clamp(Math.floor(keys.clientWidth / (7 * 36)), 1, 3);
  if (state.numKeys !== 12 * octaves + 1 || !keys.children.length) {
    state.numKeys = 12 * octaves + 1;
    buildKeys();
  }
  draw();
};

/** On a phone the keyboard is below the pad, above the controls. */
const placeKeys = (narrow) => {
  if (narrow.matches) byId("stage").append(keys);
  else byId("stage").after(keys);
};

const middle = data.pitches[Math.floor((data.pitches.length - 1) / 2)];
state.shown = middle;
state.base = clamp(12 * Math.floor(middle / 12) - (keys.clientWidth >= 7 * 36 * 2 ? 12 : 0), 0, 108);
setUpPad();
setUpKeys();
setUpComputerKeys();
setUpControls();
const narrow = matchMedia("(max-width: 46rem)");
narrow.addEventListener("change", () => placeKeys(narrow));
placeKeys(narrow);
move(0.5, 0.5);
new ResizeObserver(layOut).observe(keys);
images.forEach((image) => { image.onload = draw; });
// Some browsers let sound begin only at the end of a touch.
addEventListener("pointerup", () => { if (context.state !== "running") context.resume(); });

// For tests and tinkering.
window.nsynth = {Engine, Grid, context, data, decodeAll, engine, grid, ready, state};
