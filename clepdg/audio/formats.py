"""List the file name suffixes of audio and video; imports nothing heavy."""

from typing import Final

AUDIO_SUFFIXES: Final = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".mp4"}
)
VIDEO_SUFFIXES: Final = (".mp4", ".m4a", ".aac")
