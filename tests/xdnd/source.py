#!/usr/bin/python3
"""A window to drag files from, as a file manager does: text/uri-list over XDND.

    source.py X Y FILES...
    source.py X Y --list FILE

The second form hands over the list in FILE as it stands, byte for byte.

Prints one JSON line for each step: ready, begun, given (the target has taken
the files), ended.
"""

import json
import pathlib
import sys

import gi

gi.require_version("Gtk", "3.0")
gi.require_version("Gdk", "3.0")
from gi.repository import Gdk, Gtk  # noqa: E402


def report(event):
    print(json.dumps({"event": event}), flush=True)


def give(_widget, _context, selection, _info, _time):
    if sys.argv[3] == "--list":
        listed = pathlib.Path(sys.argv[4]).read_bytes()
        selection.set(selection.get_target(), 8, listed)
    else:
        selection.set_uris([pathlib.Path(path).absolute().as_uri() for path in sys.argv[3:]])
    report("given")


window = Gtk.Window(title="source of files")
window.set_default_size(160, 80)
window.move(int(sys.argv[1]), int(sys.argv[2]))
box = Gtk.EventBox()
box.add(Gtk.Label(label="drag me"))
window.add(box)
box.drag_source_set(Gdk.ModifierType.BUTTON1_MASK, [], Gdk.DragAction.COPY)
box.drag_source_add_uri_targets()
box.connect("drag-begin", lambda *_: report("begun"))
box.connect("drag-data-get", give)
box.connect("drag-end", lambda *_: report("ended"))
window.connect("map-event", lambda *_: report("ready"))
window.connect("destroy", Gtk.main_quit)
window.show_all()
Gtk.main()
