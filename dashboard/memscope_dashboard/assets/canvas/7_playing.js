// The moment that goes by itself.
(function () {
  const canvas = window.memscopeCanvas;
  const PLAY_MS = 8000;

  /** @type {Playing & ThisType<Instrument>} */
  const part = {
    play() {
      if (this.playing) {
        cancelAnimationFrame(this.playing);
        this.playing = null;
        this.playButton.textContent = "play";
        return;
      }
      if (!this.opened) return;
      const from = this.moment >= this.view.x1 - 1 ? this.view.x0 : Math.max(this.moment, this.view.x0);
      const to = Math.min(this.view.x1, this.run.n_events + 1);
      const began = performance.now();
      this.playButton.textContent = "stop";
      const step = () => {
        const share = (performance.now() - began) / PLAY_MS;
        this.setMoment(from + (to - from) * Math.min(share, 1), true);
        if (share < 1 && this.root.isConnected) this.playing = requestAnimationFrame(step);
        else {
          this.playing = null;
          this.playButton.textContent = "play";
        }
      };
      this.playing = requestAnimationFrame(step);
    },
  };

  canvas.parts.playing = part;
})();
