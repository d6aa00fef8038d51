"""This is where conversations that others recorded become folders that training can read.

    python -m training.corpus.prepare SOURCE --from {folder,dualtalk,vico,seamless} --out DIR

One file a step: `folder`, `dualtalk`, `vico` and `seamless` find conversations in their layouts;
`shots` and `faces` follow every face; `person` chooses whose track it is; `framing` places the
crops and finds the stretches in which both people are seen; `voices`, `speech` and `transcripts`
are the sound; `conversation` does all of it for one conversation, and `run` for all of them.

The result is the folder that `training/corpus/render.py` writes too, and that `training/data.py`
reads, with the truth that recordings have:

    DIR/{train,test,...}/conversation_NAME_000/
        a.mp4  b.mp4      aligned faces at 25 frames/s, key frames only (absent for motion data)
        a.wav  b.wav      16 kHz mono, that person's voice alone, exactly 640 samples a frame
        preview.jpg       a contact sheet of the crops, with the landmarks that were found
        truth.npz         the arrays below, each with the prefix `a_` or `b_`

| array | shape | |
|---|---|---|
| speaking | (T,) float32 | 1 where this person's voice is active, else 0 |
| identity | str, JSON | who and from which file, and the gain that was given to the voice |
| landmarks | (T, 468, 2) float16 | MediaPipe's mesh, the crop's side being 1; x right, y down |
| seen | (T,) bool | True where the face was found; elsewhere the arrays are interpolated |
| aperture | (T,) float32 | inner-lip opening over the face's height |
| pose | (T, 3) float32 | yaw, pitch, roll in rad, signs as in corpus/head.py |
| region_centers | (2, 2) float32 | lip and face, x and y: what `visavis.region` makes masks of |
| motion | (T, 56) float32 | instead of the above, for DualTalk: expression 50, jaw 3, neck 3 |

`transcript` (str, JSON) has the turns where any are known. What nobody knows is absent: curves,
visemes, emotions, causes.
"""
