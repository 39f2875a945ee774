/** 繁體中文。 */
export default {
  skip: "跳到鋼琴捲軸", studio: "FractalGen 工作室", language: "English", "language.short": "EN", theme: "深色或淺色 (T)",
  help: "鍵盤與滑鼠 (?)", close: "關閉", any: "不限", default: "預設", auto: "自動", reset: "還原設定",
  "auto.help": "交給模型決定", undo: "復原 (ctrl+Z)", redo: "重做 (ctrl+Y)", history: "歷程 (H)", take: "匯出",
  saved: "已儲存", saving: "儲存中…", offline: "暫存於此",
  lost: "伺服器沒有回應。您的變更會先留在這裡，待恢復後儲存。", "lost.kept": "伺服器沒有回應。已暫存 {n} 項變更，待恢復後儲存。",

  projects: "專案", "projects.open": "專案", "projects.name": "專案名稱", "projects.new": "新專案", "projects.file": "開啟檔案",
  "projects.folder": "儲存於 {folder}", "projects.untitled": "{day} 的作品", "projects.delete": "刪除 {name}", "projects.delete.sure": "要刪除 {name} 與全部歷程嗎？",
  "bars.count": "{n} 小節", "notes.count": "{n} 個音符", bars: "第 {n} 小節", nothing: "目前還沒有音樂。",

  panel: "設定", mode: "作曲方式", samples: "數量", "samples.n": "×{n}",
  "mode.new": "新作", "mode.continue": "續寫", "mode.region": "區域", "mode.vary": "變奏", "mode.accompany": "伴奏",
  "mode.new.help": "從零開始，或依您給的和弦與曲式作曲。", "mode.continue.help": "承接前面的全部內容往下寫。",
  "mode.region.help": "在捲軸上拖曳出矩形，或在尺規上拖曳小節。模型會依周圍內容重新作曲。", "mode.vary.help": "隨機重寫部分區塊，得到樂曲或區域的變奏。",
  "mode.accompany.help": "保留一個聲部，其餘由模型演奏。鎖定的音符也會保留。",
  "fold.character": "性格", "fold.advanced": "進階",
  "flag.model": "模型", "flag.bars": "小節數", "flag.key": "調性", "flag.tempo": "速度", "flag.meter": "拍號", "flag.chords": "和弦", "flag.form": "曲式",
  "flag.add": "增加小節", "flag.hand": "左右手", "flag.lane": "依照和弦軌", "flag.lane.help": "把捲軸上方的和弦交給模型。", "flag.strength": "強度", "flag.voice": "保留的聲部",
  "flag.side": "作曲位置", "flag.density": "密度", "flag.polyphony": "厚度", "flag.register": "音域", "flag.velocity": "力度", "flag.style": "風格",
  "flag.cfg": "引導強度", "flag.seed": "亂數種子", "flag.temperature": "溫度", "flag.scale": "音階", "flag.pitch_range": "音高範圍", "flag.max_polyphony": "最多同時音數",
  "flag.silence": "靜默區域", "flag.quality": "品質", "flag.plan_temperature": "規劃溫度", "flag.filter_threshold": "過濾門檻",
  "choice.major": "大調", "choice.minor": "小調", "choice.below": "在其下方", "choice.above": "在其上方", "choice.fast": "快速", "choice.balanced": "平衡", "choice.best": "最佳",
  "hand.both": "雙手", "hand.right": "右手", "hand.left": "左手", "example.seed": "隨機",

  "go.new": "譜寫 {n} 小節", "go.continue": "續寫 {n} 小節", "go.region": "請先標出區域", "go.region.bars": "重寫第 {bars} 小節", "go.vary": "變奏全曲",
  "go.vary.bars": "變奏第 {bars} 小節", "go.accompany": "伴奏", "go.accompany.bars": "伴奏第 {bars} 小節", "go.stop": "停止",
  composing: "作曲中。", planning: "規劃中…", progress: "區塊 {done} / {total}", queued: "排隊第 {n} 位", waiting: "等待模型…", composed: "{seconds} 秒完成：{n} 個音符。", stopped: "已停止，保留現有內容。",

  tools: "工具", tool: "工具", "tool.select": "選取、標出區域 (1)", "tool.draw": "畫音符 (2)", "tool.erase": "擦除音符 (3)", grid: "格線",
  "edit.more": "編輯", "edit.copy": "複製", "edit.cut": "剪下", "edit.paste": "貼到游標處", "edit.duplicate": "再製", "edit.delete": "刪除", "edit.up": "升八度", "edit.down": "降八度",
  "edit.quantise": "量化", "edit.quantise.help": "對齊格線 (Q)", "edit.lock": "鎖定：模型不更動 (K)", "edit.right": "歸右手", "edit.left": "歸左手", "edit.pick.right": "選取右手", "edit.pick.left": "選取左手", "edit.insert": "插入 4 小節待填",
  "edit.trim": "樂曲在此結束", "edit.all": "全選", midi: "連接 MIDI 鍵盤", "midi.found": "已連接：{name}", "midi.none": "沒有連接 MIDI 鍵盤。",
  watch: "重看作曲過程 (W)", hands: "依左右手著色", "zoom.in": "放大 (+)", "zoom.out": "縮小 (-)", "zoom.fit": "顯示全曲 (0)",

  "did.move": "移動 {n} 個音符", "did.resize": "調整 {n} 個音符長度", "did.add": "新增音符", "did.velocity": "調整 {n} 個音符力度", "did.delete": "刪除 {n} 個音符", "did.copy": "複製 {n} 個音符",
  "did.paste": "貼上 {n} 個音符", "did.duplicate": "再製 {n} 個音符", "did.quantise": "量化 {n} 個音符", "did.lock": "鎖定 {n} 個音符", "did.unlock": "解鎖 {n} 個音符", "did.hand": "指定 {n} 個音符的手",
  "did.chords": "和弦 {name}", "did.sections": "段落 {name}", "did.meter": "拍號 {meter}", "did.lengthen": "共 {n} 小節", "did.tempo": "速度 {bpm}", "did.insert": "插入 {n} 小節", "did.trim": "新的結尾", "did.record": "錄製 {n} 個音符",
  "label.new piece": "新作", "label.continue": "續寫", "label.compose": "重寫{bars}", "label.accompany": "伴奏{bars}", "label.vary": "變奏{bars}", "label.import": "匯入", "label.bars": "第 {bars} 小節",
  "label.stopped": "（已停止）", "state.new": "空白頁", undone: "已復原：{label}", selected: "已選 {n} 個音符",

  region: "區域", "region.is": "第 {bars} 小節", "region.says": "區域：第 {bars} 小節，{low} 到 {high}", "region.none": "請先在捲軸上拖曳出矩形。",
  "region.compose": "重寫", "region.compose.help": "重寫此區域 (R)", "region.three": "三種寫法", "region.three.help": "三種寫法：三個備選 (A)", "region.vary": "變奏此區域 (V)", "region.loop": "循環此區域 (L)",
  "region.close": "取消區域 (esc)", "drag.region": "把這些小節拖到其他程式",

  alternatives: "備選", "strip.name": "備選 {letter}", "strip.look": "顯示備選 {letter}", "strip.listen": "試聽 {letter}", "strip.accept": "採用", "strip.accept.help": "採用備選 {letter}",
  "strip.reject": "收起 {letter}", "strip.dismiss": "維持原樣", "strip.first": "請先採用此備選，或維持原樣。", "strip.wait": "作曲完成後即可編輯。", "strip.choose": "{n} 個備選：試聽後採用其一。", "strip.accepted": "已採用。復原可再次選擇。",

  transport: "播放控制", play: "播放 (空白鍵)", pause: "暫停 (空白鍵)", start: "回到開頭 (home)", record: "錄製 MIDI 鍵盤", position: "位置：小節、拍、十六分音符", loop: "循環 (L)", metronome: "節拍器 (M)",
  sustain: "延音踏板 (P)", follow: "跟隨游標", meter: "自此小節起的拍號", "tempo.short": "速度", volume: "音量", progress_bar: "進度",
  "lane.form": "曲式", "lane.chords": "和弦", "lane.velocity": "力度", "lane.chords.edit": "和弦", "lane.sections.edit": "段落",
  "roll.role": "鋼琴捲軸", "roll.says": "鋼琴捲軸，{bars} 小節，{n} 個音符。按 N 到下一個音符，方向鍵移動它。",
  "note.says": "{name} · 第 {bar} 小節 : {beat} : {step} · {steps}/16 · 力度 {velocity}{more}", "note.hand0": " · 右手", "note.hand1": " · 左手", "note.locked": " · 已鎖定",

  "welcome.title": "一張空白頁", "welcome.text": "讓模型作曲，自己彈奏或畫音符，或把 MIDI、MusicXML、和弦檔拖到這裡。", "welcome.compose": "作曲", "welcome.file": "開啟檔案", "welcome.draw": "畫音符",
  drop: "放開即可開啟：MIDI、MusicXML、和弦或專案", imported: "已開啟 {name}",

  "take.mid": "MIDI", "take.mid.help": "兩手分軌、和弦、速度", "take.musicxml": "MusicXML", "take.musicxml.help": "供製譜軟體使用", "take.wav": "聲音", "take.wav.help": "WAV，取樣鋼琴", "take.mp4": "影片", "take.mp4.help": "MP4 作曲過程",
  "take.gif": "動畫", "take.gif.help": "GIF", "take.html": "網頁", "take.html.help": "離線播放作曲過程", "take.project": "專案", "take.project.help": "含全部歷程", "take.drag": "MIDI 可以從這裡拖到其他程式。", "take.wait": "正在製作 {name}…", taken: "{name} 已完成。",

  "help.title": "鍵盤與滑鼠", "help.listen": "聆聽", "help.compose": "作曲", "help.edit": "編輯", "help.notes": "音符", "help.view": "檢視", "help.bar": "前後一小節", "help.seek": "點尺規：從該處播放", "help.go": "執行作曲按鈕",
  "help.stop": "停止，或取消區域", "help.tools": "選取、畫、擦除", "help.clipboard": "複製、剪下、貼上", "help.time": "提早、延後", "help.pitch": "降低、升高", "help.octave": "八度", "help.length": "縮短、加長",
  "help.velocity": "加強、減弱", "help.next": "下一個音符（shift：上一個）", "help.add": "在游標處新增音符", "help.zoom": "放大、縮小", "help.wheel": "縮放（alt：音高）",
  "help.text": "在捲軸上拖曳可標出區域；在尺規上拖曳可標出整小節。點和弦軌或曲式軌可輸入文字。在力度軌拖曳可調整力度。觸控螢幕：長按標出區域，雙指縮放。拖曳時按 alt 不對齊格線，按 ctrl 為複製。",
};
