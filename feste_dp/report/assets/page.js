// What a page does beyond HTML: theme, read-outs under the pointer, one sample at a time, and, where the page is
// live, exchanging the sections that changed. Works without a network; without this file all figures are still
// in the tables.
"use strict";
(() => {
  const root = document.documentElement;
  const store = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* a file may have no storage */ } },
  };

  function theme() {
    const button = document.getElementById("theme");
    const names = ["auto", "light", "dark"];
    const apply = (name) => {
      if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
      button.textContent = name;
      button.setAttribute("aria-label", `colours: ${name}; change`);
    };
    let now = names.includes(store.get("feste-dp-theme")) ? store.get("feste-dp-theme") : "auto";
    apply(now);
    button.hidden = false;
    button.addEventListener("click", () => {
      now = names[(names.indexOf(now) + 1) % names.length];
      store.set("feste-dp-theme", now);
      apply(now);
    });
  }

  const number = (text) => parseFloat(text.replaceAll(",", ""));
  let reading = null; // {id, share}: the chart under the pointer, to be found again after an exchange

  function chart(figure) {
    const area = figure.querySelector(".area");
    if (!area) return;
    const [low, high, isLog] = figure.dataset.y.split(" ").map(Number);
    const at = (y) => (isLog ? Math.log(y / low) / Math.log(high / low) : (y - low) / (high - low));
    const names = [...figure.querySelectorAll("thead th")].slice(1).map((cell) => cell.textContent);
    const keys = [...figure.querySelectorAll(".key")];
    let label = figure.querySelector(".x-label").textContent;
    const inTable = () => [...figure.querySelectorAll("table.data tbody tr")].map((row) => ({
      share: Number(row.dataset.x),
      x: row.cells[0].textContent,
      cells: [...row.cells].slice(1).map((cell) => cell.textContent),
    }));
    let rows = null;
    const parsed = () => rows ??= inTable();
    const shown = (series) => keys[series].getAttribute("aria-pressed") === "true";

    function clear() {
      area.querySelectorAll(".cursor, .dot, .readout").forEach((each) => each.remove());
    }
    function add(name, style, parent = area) {
      const made = document.createElement(name === "readout" ? "div" : "i");
      made.className = name;
      Object.assign(made.style, style);
      parent.append(made);
      return made;
    }
    // the row at most a fiftieth of the width away that has a value of this curve: not all have one at each x
    function valueNear(all, near, series) {
      let best = null;
      for (const step of [1, -1]) {
        for (let index = near; index in all && Math.abs(all[index].share - all[near].share) < 0.02; index += step) {
          if (all[index].cells[series] === "") continue;
          const distance = Math.abs(all[index].share - all[near].share);
          if (!best || distance < Math.abs(best.share - all[near].share)) best = all[index];
          break;
        }
      }
      return best;
    }
    function show(share) {
      clear();
      const all = parsed();
      if (!all.length) return;
      const near = all.reduce((best, row, index) =>
        Math.abs(row.share - share) < Math.abs(all[best].share - share) ? index : best, 0);
      const row = all[near];
      add("cursor", { left: `${100 * row.share}%` });
      const box = add("readout", row.share < 0.5 ? { left: `calc(${100 * row.share}% + 12px)` }
        : { right: `calc(${100 * (1 - row.share)}% + 12px)` });
      const head = document.createElement("b");
      head.textContent = `${label} ${row.x}`;
      box.append(head);
      names.forEach((name, series) => {
        if (!shown(series)) return;
        const value = valueNear(all, near, series);
        if (value === null) return;
        const colour = [...keys[series].classList].find((each) => /^c\d$/.test(each));
        const line = document.createElement("span");
        const dot = document.createElement("i");
        const what = document.createElement("em");
        const figures = document.createElement("strong");
        line.className = colour;
        what.textContent = name;
        figures.textContent = value.cells[series];
        line.append(dot, what, figures);
        box.append(line);
        if (!("stacked" in figure.dataset)) {
          const y = at(number(value.cells[series]));
          add(`dot ${colour}`, { left: `${100 * value.share}%`, top: `${100 * (1 - y)}%` });
        }
      });
      reading = { id: figure.id, share: row.share, near };
    }
    figure.showAt = show;
    if (figure.closest("[data-axes]")) {
      figure.over = overAxes(figure, inTable, (taken, name) => { clear(); rows = taken; label = name; });
    }
    const share = (event) => {
      const box = area.getBoundingClientRect();
      return (event.clientX - box.left) / box.width;
    };
    area.addEventListener("pointermove", (event) => show(share(event)));
    area.addEventListener("pointerdown", (event) => show(share(event)));
    area.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") { clear(); reading = null; }
    });
    area.tabIndex = 0;
    area.setAttribute("aria-label", "arrow keys read the values out");
    area.setAttribute("role", "group");
    area.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const all = parsed();
      if (!step || !all.length) return;
      event.preventDefault();
      const from = reading && reading.id === figure.id ? reading.near : (step > 0 ? -1 : all.length);
      show(all[Math.min(all.length - 1, Math.max(0, from + step))].share);
    });
    area.addEventListener("blur", () => { clear(); reading = null; });
    keys.forEach((key, series) => key.addEventListener("click", () => {
      const pressed = !shown(series);
      key.setAttribute("aria-pressed", pressed);
      figure.querySelector(`svg g[data-series="${series}"]`)?.classList.toggle("off", !pressed);
    }));
  }

  // Curves over tokens or time ------------------------------------------------------------------------------
  let axis = ["tokens", "time"].includes(store.get("feste-dp-axis")) ? store.get("feste-dp-axis") : "steps";

  function duration(seconds) {
    const whole = Math.round(seconds);
    const two = (value) => String(value).padStart(2, "0");
    if (whole < 60) return seconds < 10 && seconds !== whole ? `${seconds.toFixed(1)}s` : `${whole}s`;
    if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)}h${two(Math.floor(whole / 60) % 60)}m`;
    return `${Math.floor(whole / 86400)}d${two(Math.floor(whole / 3600) % 24)}h`;
  }
  function short(value) {
    for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
      if (value >= size) return `${Number((value / size).toPrecision(4))}${letter}`;
    }
    return value >= 1e4 ? `${Number((value / 1000).toPrecision(4))}k` : value.toLocaleString("en");
  }
  const LENGTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];
  function ticks(low, high, isTime) {
    const raw = (high - low) / 5;
    let step = LENGTHS.find((length) => length >= raw);
    if (!isTime || raw < 1 || !step) {
      const base = isTime && raw >= 1 ? 86400 : 1;
      const unit = 10 ** Math.floor(Math.log10(raw / base));
      step = base * [1, 2, 2.5, 5, 10].map((nice) => nice * unit).find((each) => each >= raw / base * 0.999);
    }
    const found = [];
    for (let count = Math.ceil(low / step - 1e-9); count * step <= high + 1e-9 * step; count++) found.push(count * step);
    return found;
  }

  // What lays a chart over another axis. The heights stay as they were drawn; the n-th point of a curve is the n-th
  // row of the table that has a value of it.
  function overAxes(figure, inTable, taken) {
    const runs = JSON.parse(figure.closest("[data-axes]").dataset.axes);
    const table = inTable().map((row) => ({ ...row, step: number(row.x) }));
    const paths = [...figure.querySelectorAll("svg g[data-run] path")].map((path) => ({
      path, drawn: path.getAttribute("d"), series: Number(path.parentNode.dataset.series),
      run: runs[Number(path.parentNode.dataset.run)],
    }));
    const across = figure.querySelector(".ticks-x");
    const [shown, name] = [across.innerHTML, figure.querySelector(".x-label").textContent];
    const marks = [...figure.querySelectorAll(".mark")].map((mark) => [mark, mark.style.left]);
    const convert = {
      tokens: (run, step) => step * run.tokens,
      time: ({ steps, seconds }, step) => {
        let last = steps.length - 1;
        if (last < 1) return seconds[0] ?? 0;
        let first = 0; // the two known steps around it, or the two at the end that it lies beyond
        while (last - first > 1) {
          const middle = (first + last) >> 1;
          if (steps[middle] <= step) first = middle; else last = middle;
        }
        const part = (step - steps[first]) / Math.max(1, steps[last] - steps[first]);
        return Math.max(0, seconds[first] + part * (seconds[last] - seconds[first]));
      },
    };

    return (wanted) => {
      if (wanted === "steps" || !runs.length) {
        paths.forEach(({ path, drawn }) => path.setAttribute("d", drawn));
        marks.forEach(([mark, left]) => { mark.style.left = left; });
        across.innerHTML = shown;
        figure.querySelector(".x-label").textContent = name;
        taken(null, name);
        return;
      }
      const points = paths.map(({ series, run }) => table.filter((row) => row.cells[series] !== "")
        .map((row) => ({ x: convert[wanted](run, row.step), cell: row.cells[series] })));
      const all = points.flat().map((point) => point.x);
      let low = Math.min(...all);
      let high = Math.max(...all);
      if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
      const share = (x) => (x - low) / (high - low);
      const rows = new Map();
      paths.forEach(({ path, drawn, series }, index) => {
        const own = points[index];
        let at = 0;
        path.setAttribute("d", drawn.replace(/(-?[\d.]+) (-?[\d.]+)/g, (whole, x, y) => {
          const point = own[at < own.length ? at : 2 * own.length - 1 - at]; // a layer of a stack goes there and back
          at += 1;
          return point ? `${(1000 * share(point.x)).toFixed(1)} ${y}` : whole;
        }));
        own.forEach(({ x, cell }) => {
          if (!rows.has(x)) rows.set(x, { share: share(x), x: wanted === "time" ? duration(x) : x.toLocaleString("en"),
            cells: table[0].cells.map(() => "") });
          rows.get(x).cells[series] = cell;
        });
      });
      const [first, last] = [table[0].step, table[table.length - 1].step];
      marks.forEach(([mark, left]) => {
        const step = last > first ? first + parseFloat(left) / 100 * (last - first) : first;
        mark.style.left = `${(100 * share(convert[wanted](paths[0].run, step))).toFixed(2)}%`;
      });
      across.replaceChildren(...ticks(low, high, wanted === "time").map((x) => {
        const made = document.createElement("span");
        made.style.left = `${(100 * share(x)).toFixed(2)}%`;
        made.textContent = wanted === "time" ? duration(x) : short(x);
        return made;
      }));
      figure.querySelector(".x-label").textContent = wanted === "time" ? "time of training" : wanted;
      taken([...rows.values()].sort((a, b) => a.share - b.share), wanted);
    };
  }

  function axisSwitch(part) {
    const bar = part.querySelector(".axis");
    if (!bar) return;
    const buttons = [...bar.querySelectorAll("button")];
    const apply = () => {
      buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.axis === axis));
      part.querySelectorAll("[data-axes] figure").forEach((figure) => figure.over?.(axis));
    };
    buttons.forEach((button) => button.addEventListener("click", () => {
      axis = button.dataset.axis;
      store.set("feste-dp-axis", axis);
      reading = null;
      apply();
    }));
    bar.hidden = false;
    apply();
  }

  // The table of runs: sorted by a click on a heading, filtered by words and state ----------------------------
  const listed = { column: null, down: false, words: "", state: "" };
  function runTable(part) {
    const table = part.querySelector("table.runs");
    if (!table) return;
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const bar = part.querySelector(".filter");
    const [words, state] = [bar.querySelector("input"), bar.querySelector("select")];
    const count = bar.querySelector("output");
    const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    function apply() {
      const wanted = listed.words.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        const fits = wanted.every((word) => text.includes(word)) && (!listed.state || row.dataset.state === listed.state);
        row.hidden = !fits;
        left += fits;
      });
      count.textContent = left === rows.length ? `${left} runs` : `${left} of ${rows.length} runs`;
      const { column, down } = listed;
      heads.forEach((head, index) => {
        if (index === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      if (column === null) { body.append(...rows); return; }
      const isNumber = heads[column].classList.contains("number");
      body.append(...[...rows].sort((a, b) => {
        const [first, second] = [key(a, column), key(b, column)];
        if (first === "" || second === "") return (first === "") - (second === ""); // what is not known comes last
        const order = isNumber ? Number(first) - Number(second) : first.localeCompare(second, "en", { numeric: true });
        return down ? -order : order;
      }));
    }
    heads.forEach((head, index) => head.querySelector("button")?.addEventListener("click", () => {
      if (listed.column !== index) Object.assign(listed, { column: index, down: head.classList.contains("number") });
      else listed.down = !listed.down;
      apply();
    }));
    [words.value, state.value] = [listed.words, listed.state];
    words.addEventListener("input", () => { listed.words = words.value; apply(); });
    state.addEventListener("change", () => { listed.state = state.value; apply(); });
    bar.hidden = false;
    // a run may be chosen in the table or on its card
    part.querySelectorAll('input[name="run"]').forEach((input) => input.addEventListener("change", () => {
      part.querySelectorAll('input[name="run"]').forEach((other) => {
        if (other.value === input.value) other.checked = input.checked;
      });
    }));
    apply();
  }

  const chosen = new Map(); // the step that a list of samples shows, where it is not the last
  function samples(list) {
    const articles = [...list.querySelectorAll("article")];
    if (articles.length < 2) return;
    const bar = document.createElement("label");
    const slider = document.createElement("input");
    const text = document.createElement("span");
    bar.className = "stepper";
    Object.assign(slider, { type: "range", min: 0, max: articles.length - 1, step: 1 });
    const kept = articles.findIndex((article) => article.dataset.step === chosen.get(list.dataset.key));
    slider.value = kept < 0 ? articles.length - 1 : kept;
    const apply = () => {
      articles.forEach((article, index) => { article.hidden = index !== Number(slider.value); });
      text.textContent = `sample ${Number(slider.value) + 1} of ${articles.length}`;
    };
    slider.addEventListener("input", () => {
      const index = Number(slider.value);
      if (index === articles.length - 1) chosen.delete(list.dataset.key);
      else chosen.set(list.dataset.key, articles[index].dataset.step);
      apply();
    });
    bar.append(text, slider);
    articles[0].before(bar);
    apply();
  }

  function enliven(part) {
    part.querySelectorAll("figure.chart").forEach(chart);
    part.querySelectorAll(".samples").forEach(samples);
    axisSwitch(part);
    runTable(part);
  }

  // Live pages ------------------------------------------------------------------------------------------------
  function live(every) {
    const state = document.getElementById("live");
    const parts = () => [...document.querySelectorAll("main > [id]")];
    const served = new Map(parts().map((part) => [part.id, part.outerHTML]));
    let version = root.dataset.version;

    function exchange(old, fresh) {
      const open = new Map([...old.querySelectorAll("details")].map((each) => [each.dataset.key, each.open]));
      const scrolled = new Map([...old.querySelectorAll("details .scroll")]
        .map((each) => [each.closest("details").dataset.key, each.scrollTop]));
      const off = [...old.querySelectorAll('.key[aria-pressed="false"]')]
        .map((key) => [key.closest("figure").id, key.textContent]);
      const checked = new Set([...old.querySelectorAll("input:checked")].map((input) => input.value));
      const focused = old.contains(document.activeElement) ? document.activeElement.closest("figure")?.id : null;
      const typing = old.contains(document.activeElement) && document.activeElement.closest(".filter")
        ? [document.activeElement.tagName, document.activeElement.selectionStart] : null;
      old.replaceWith(fresh);
      enliven(fresh);
      fresh.querySelectorAll("details").forEach((each) => {
        if (open.has(each.dataset.key)) each.open = open.get(each.dataset.key);
      });
      fresh.querySelectorAll("details .scroll").forEach((each) => {
        each.scrollTop = scrolled.get(each.closest("details").dataset.key) ?? 0;
      });
      off.forEach(([id, name]) => [...fresh.querySelectorAll(`#${CSS.escape(id)} .key`)]
        .find((key) => key.textContent === name)?.click());
      fresh.querySelectorAll("input[type=checkbox]").forEach((input) => { input.checked = checked.has(input.value); });
      if (typing) {
        const field = fresh.querySelector(`.filter ${typing[0]}`);
        field?.focus({ preventScroll: true });
        if (typing[0] === "INPUT") field?.setSelectionRange(typing[1], typing[1]);
      }
      const at = reading;
      if (focused) fresh.querySelector(`#${CSS.escape(focused)} .area`)?.focus({ preventScroll: true });
      if (at) fresh.querySelector(`#${CSS.escape(at.id)}`)?.showAt?.(at.share);
    }

    function take(text) {
      const page = new DOMParser().parseFromString(text, "text/html");
      const fresh = [...page.querySelectorAll("main > [id]")];
      const main = document.querySelector("main");
      const wanted = new Set(fresh.map((part) => part.id));
      parts().forEach((part) => { if (!wanted.has(part.id)) { part.remove(); served.delete(part.id); } });
      fresh.forEach((part) => {
        const html = part.outerHTML;
        if (served.get(part.id) === html) return;
        served.set(part.id, html);
        const old = document.getElementById(part.id);
        if (old) exchange(old, part); else { main.append(part); enliven(part); }
      });
      document.title = page.title;
    }

    async function poll() {
      let wait = every;
      if (!document.hidden) {
        try {
          const answer = await fetch(location.href, { headers: { "If-None-Match": version }, cache: "no-store" });
          if (answer.status === 200) {
            version = answer.headers.get("ETag");
            take(await answer.text());
          } else if (answer.status !== 304) throw new Error(String(answer.status));
          state.className = "";
          state.textContent = `live · ${new Date().toLocaleTimeString()}`;
        } catch {
          state.className = "off";
          state.textContent = "no answer from the dashboard";
          wait = 3 * every;
        }
      }
      setTimeout(poll, wait);
    }
    setTimeout(poll, every);
  }

  theme();
  const every = Number(root.dataset.live);
  if (every) live(every);
  enliven(document);
})();
