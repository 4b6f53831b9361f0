// One square per node on a canvas: ten thousand are a string of ten thousand characters, and no elements.
// A cell is "0" to "9", how full the node is in ninths, "x": it is gone, "e": it is excluded.
const SHADES = ["#e8eef5", "#d3e2f1", "#b9d2ea", "#9cc0e2", "#7dacd8", "#5f97cd", "#4381bf", "#2b6bae", "#175797", "#0a437c"];
const SHUT = { x: "#c22f2f", e: "#b0730e" };
const INK = "#1d2733";
const HEADING = 30;
const TITLE = 24;
const GAP = 12;
const LARGEST = 22;

export default {
  template: `<div class="heatmap"><canvas tabindex="0" role="application" :aria-label="label"
    @click="point" @keydown="move" @focus="draw" @blur="draw"></canvas></div>`,
  props: { label: String, pools: Array },
  emits: ["choose"],
  data: () => ({ pool: 0, place: 0, isChosen: false }),
  mounted() {
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.$el);
    this.draw();
  },
  unmounted() {
    this.observer.disconnect();
  },
  watch: { pools() { this.draw(); } },
  methods: {
    layout() {
      const width = Math.max(120, this.$el.clientWidth);
      const count = this.pools.reduce((sum, [, , cells]) => sum + cells.length, 0);
      // As large as lets all nodes fit on about one screen, but never too small to be hit.
      const ideal = Math.floor(Math.sqrt((width * 480) / Math.max(1, count)));
      const size = Math.min(LARGEST, Math.max(6, ideal));
      const columns = Math.max(1, Math.floor(width / size));
      let top = 0;
      const tops = this.pools.map(([heading, , cells]) => {
        const at = top + (heading ? HEADING : 0) + TITLE;
        top = at + Math.ceil(cells.length / columns) * size + GAP;
        return at;
      });
      return { width, height: top, size, columns, tops };
    },
    draw() {
      const { width, height, size, columns, tops } = this.layout();
      const canvas = this.$el.querySelector("canvas");
      const ratio = window.devicePixelRatio || 1;
      const [wide, high] = [width, height].map((length) => Math.max(1, Math.round(length * ratio)));
      if (this.painted !== this.pools || this.picture.width !== wide || this.picture.height !== high) {
        // Ten thousand squares take longer than a frame: they are painted when they change, not when the mark moves.
        this.picture = this.paint(wide, high, ratio);
        this.painted = this.pools;
      }
      if (canvas.width !== wide || canvas.height !== high) {
        [canvas.width, canvas.height] = [wide, high];
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
      }
      const pen = canvas.getContext("2d");
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, wide, high);
      pen.drawImage(this.picture, 0, 0);
      if (this.isChosen || document.activeElement === canvas) {
        const y = tops[this.pool] + Math.floor(this.place / columns) * size;
        pen.scale(ratio, ratio);
        pen.strokeStyle = INK;
        pen.lineWidth = 2;
        const inner = size - (size > 8 ? 2 : 1);
        pen.strokeRect((this.place % columns) * size, y, inner, inner);
      }
    },
    paint(wide, high, ratio) {
      const { width, size, columns, tops } = this.layout();
      const picture = document.createElement("canvas");
      [picture.width, picture.height] = [wide, high];
      const pen = picture.getContext("2d");
      pen.scale(ratio, ratio);
      const inner = size - (size > 8 ? 2 : 1);
      this.pools.forEach(([heading, name, cells], pool) => {
        pen.fillStyle = INK;
        if (heading) {
          pen.font = "700 15px system-ui, sans-serif";
          pen.fillText(heading, 0, tops[pool] - TITLE - 10, width);
          pen.fillRect(0, tops[pool] - TITLE - 4, width, 1);
        }
        pen.font = "600 13px system-ui, sans-serif";
        pen.fillText(`${name} · ${cells.length}`, 0, tops[pool] - 8, width);
        for (let place = 0; place < cells.length; place++) {
          const x = (place % columns) * size;
          const y = tops[pool] + Math.floor(place / columns) * size;
          if (!(cells[place] in SHUT)) {
            pen.fillStyle = SHADES[cells[place]];
            pen.fillRect(x, y, inner, inner);
            continue;
          }
          pen.strokeStyle = SHUT[cells[place]];
          pen.lineWidth = 1.5;
          pen.strokeRect(x + 0.75, y + 0.75, inner - 1.5, inner - 1.5);
          pen.beginPath();
          pen.moveTo(x, y);
          pen.lineTo(x + inner, y + inner);
          if (cells[place] === "x") {
            pen.moveTo(x + inner, y);
            pen.lineTo(x, y + inner);
          }
          pen.stroke();
        }
      });
      return picture;
    },
    point(event) {
      const { size, columns, tops } = this.layout();
      const column = Math.floor(event.offsetX / size);
      this.pools.forEach(([, , cells], pool) => {
        const row = Math.floor((event.offsetY - tops[pool]) / size);
        const place = row * columns + column;
        if (row >= 0 && column < columns && place < cells.length) this.choose(pool, place);
      });
    },
    choose(pool, place) {
      [this.pool, this.place, this.isChosen] = [pool, place, true];
      this.draw();
      this.$emit("choose", [pool, place]);
    },
    move(event) {
      const { columns } = this.layout();
      if (event.key === "Enter" || event.key === " ") {
        this.choose(this.pool, this.place);
        event.preventDefault();
        return;
      }
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      let place = this.place + by;
      if (place < 0 && this.pool > 0) {
        this.pool -= 1;
        place = this.pools[this.pool][2].length - 1;
      } else if (place >= this.pools[this.pool][2].length && this.pool + 1 < this.pools.length) {
        this.pool += 1;
        place = 0;
      }
      this.place = Math.min(Math.max(0, place), this.pools[this.pool][2].length - 1);
      this.draw();
    },
  },
};
