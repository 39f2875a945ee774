/** Listening and recording: the cursor, the loop, a MIDI keyboard. */
import { toast } from "./dialogs.js";
import * as edit from "./document.js";
import { t } from "./i18n.js";
import { Keyboard } from "./midi.js";

export class Transport {
  constructor(studio) {
    this.studio = studio;
  }

  touch(pitch, velocity) {
    const { studio } = this;
    if (!studio.playing) studio.player.touch(pitch, velocity);
    studio.lastPitch = pitch;
  }

  seek(tick) {
    const { studio } = this;
    studio.player.seek(edit.clamp(tick, 0, Math.max(studio.shown.length, studio.cursor)));
    studio.refresh();
  }

  toggle() {
    const { player } = this.studio;
    if (player.playing) player.pause();
    else player.play();
  }

  /** To the beginning of the next bar, of this one or of the last one. */
  bar(by) {
    const { shown, cursor, playing, roll } = this.studio,
      at = edit.barAt(shown, by < 0 ? Math.max(0, cursor - (playing ? 240 : 1)) : cursor);
    this.seek(edit.bars(shown)[by > 0 ? at + 1 : at].tick);
    roll.reveal(this.studio.cursor);
  }

  toggleLoop() {
    const { studio } = this;
    studio.loop ??= { start: 0, end: studio.piece.length || 7680 };
    studio.flip(studio.player, "looping");
  }

  async connectKeyboard() {
    const { keyboard, player } = this.studio;
    try {
      await keyboard.connect();
      await player.wake();
      const name = keyboard.devices.map((device) => device.name).join(", ");
      toast(keyboard.devices.length ? t("midi.found", { name }) : t("midi.none"));
    } catch (error) {
      toast(error.message, "error");
    }
  }

  async record() {
    const { studio } = this,
      { keyboard, player } = studio;
    if (keyboard.recording) {
      keyboard.stop();
      return player.pause();
    }
    if (Keyboard.possible) await this.connectKeyboard();
    keyboard.start();
    studio.welcomed = true;
    await player.play();
  }
}
