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
    const label = figure.querySelector(".x-label").textContent;
    let rows = null;
    const parsed = () => rows ??= [...figure.querySelectorAll("table.data tbody tr")].map((row) => ({
      share: Number(row.dataset.x),
      x: row.cells[0].textContent,
      cells: [...row.cells].slice(1).map((cell) => cell.textContent),
    }));
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
