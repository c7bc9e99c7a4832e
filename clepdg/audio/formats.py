"""List the file name suffixes of audio and video; imports nothing heavy."""

from typing import Final

AUDIO_SUFFIXES: Final = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".mp4", ".webm"}
)
LFS_POINTER: Final = b"version https://git-lfs"  # the start of a git lfs pointer, in a clone without its audio
POINTER: Final = "a git lfs pointer, not audio: run git lfs pull in the corpus's clone"
