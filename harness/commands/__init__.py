"""The commands of ``pardec``, one file each: they parse, call a room, and print."""
