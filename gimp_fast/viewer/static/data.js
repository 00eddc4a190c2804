// Where the page has its data from: its server, or itself. Both give the same.
"use strict";
(() => {
  const view = (window.gimpView = window.gimpView || {});

  // The patches of a slide: a typed array of each column, and the order in which to draw them.
  class Patches {
    constructor(buffer, columns, slide) {
      const names = [...columns.floats, ...columns.integers];
      this.length = buffer.byteLength / (4 * names.length);
      this.size = slide.patch_size;
      this.unit = slide.unit;
      names.forEach((name, place) => {
        const Kind = place < columns.floats.length ? Float32Array : Int32Array;
        this[name] = new Kind(buffer, 4 * place * this.length, this.length);
      });
      // The highest is drawn last, so that it is on top where patches overlap.
      this.rising = new Uint32Array(this.length);
      for (let i = 0; i < this.length; i++) this.rising[this.length - this.rank[i]] = i;
      this.box = this.extent();
    }

    // Left, top, right and bottom of all patches; null where no place is known.
    extent() {
      let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
      for (let i = 0; i < this.length; i++) {
        const x = this.x[i], y = this.y[i];
        if (x !== x) continue;
        if (x < left) left = x;
        if (x > right) right = x;
        if (y < top) top = y;
        if (y > bottom) bottom = y;
      }
      if (left === Infinity) return null;
      return { left, top, right: right + this.size, bottom: bottom + this.size };
    }

    // The place of the highest patch at a point; −1 where there is none.
    at(x, y) {
      for (let n = this.length - 1; n >= 0; n--) {
        const i = this.rising[n], dx = x - this.x[i], dy = y - this.y[i];
        if (dx >= 0 && dy >= 0 && dx < this.size && dy < this.size) return i;
      }
      return -1;
    }

    ofRank(rank) {
      return this.rising[this.length - rank];
    }

    // How many patches are at or above a place on the bar, and the lowest of their shares.
    above(column, threshold) {
      let count = 0, lowest = Infinity;
      for (let i = 0; i < this.length; i++) {
        if (this[column][i] < threshold) continue;
        count++;
        if (this.times_even[i] < lowest) lowest = this.times_even[i];
      }
      return { count, lowest };
    }
  }

  async function fetched(address) {
    const answer = await fetch(address, { credentials: "omit" });
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error || `${address}: ${answer.status}`);
  }
  const json = async (address) => (await fetched(address)).json();

  class Served {
    catalogue = () => json("catalogue");
    buffer = async (folder, place, slide) =>
      (await fetched(`patches/${folder}/${place}/${slide}`)).arrayBuffer();
    genes = (folder, place) => json(`genes/${folder}/${place}`);
    crop = (folder, place, slide, patch) => `crop/${folder}/${place}/${slide}/${patch}`;
    async picture(number) {
      const info = await json(`slide/${number}`);
      const url = (level, column, row) => `tile/${number}/${level}/${column}/${row}`;
      return info.missing ? info : { ...info, tileUrl: url };
    }
  }

  class Inlined {
    constructor(content) {
      this.content = content;
    }
    catalogue = async () => this.content.catalogue;
    genes = async () => this.content.genes;
    crop = (folder, place, slide, patch) => this.content.crops[patch] || null;
    picture = async () => this.content.slide;
    async buffer() {
      const packed = Uint8Array.from(atob(this.content.patches), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      return new Response(stream).arrayBuffer();
    }
  }

  view.Patches = Patches;
  view.openSource = () => {
    const content = JSON.parse(document.getElementById("inline").textContent);
    return content === null ? new Served() : new Inlined(content);
  };
})();
