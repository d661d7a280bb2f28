//! Files dragged over the window from other programs (XDND, version 5).
//!
//! winit answers the source, but drops a whole list for one name that it does not
//! understand, without an error. So this module listens to the same messages (the RECORD
//! extension, for this window's client and these messages only), and reads and parses the
//! list itself.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use winit::raw_window_handle::{HasWindowHandle as _, RawWindowHandle};
use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::Event;
use x11rb::protocol::record::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    AtomEnum, CLIENT_MESSAGE_EVENT, ClientMessageEvent, ConnectionExt as _, CreateWindowAux,
    EventMask, Property, SelectionNotifyEvent, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::x11_utils::TryParse as _;

use crate::drag::{Drag, DragState};
use crate::paste;

/// The longest list that is read.
const LIST_BYTES_MAX: usize = 32 << 20;

x11rb::atom_manager! {
    Atoms: AtomsCookie {
        XdndEnter,
        XdndPosition,
        XdndLeave,
        XdndDrop,
        XdndSelection,
        URI_LIST: b"text/uri-list",
        INCR,
        PINHOLE_DROPPED,
    }
}

/// Watches drags over one window.
pub(crate) struct DragWatch(Arc<Mutex<Drag>>);

impl DragWatch {
    /// `None` under Wayland, where winit has no file drag.
    pub(crate) fn new(cc: &eframe::CreationContext<'_>) -> Option<Self> {
        let window = match cc.window_handle().ok()?.as_raw() {
            RawWindowHandle::Xlib(handle) => u32::try_from(handle.window).ok()?,
            RawWindowHandle::Xcb(handle) => handle.window.get(),
            _ => return None,
        };
        let drag = Arc::default();
        match watch(window, cc.egui_ctx.clone(), Arc::clone(&drag)) {
            Ok(()) => Some(Self(drag)),
            Err(error) => {
                tracing::warn!(%error, "drops will ask to whom: the X server does not tell what is dragged");
                None
            }
        }
    }

    /// The present drag, and what was dropped since the last call.
    pub(crate) fn look(&self) -> DragState {
        let mut drag = self.0.lock();
        drag.as_mut()
            .map_or_else(|_| DragState::default(), |drag| drag.look(Instant::now()))
    }
}

type XdndError = Box<dyn std::error::Error + Send + Sync>;

/// Requests lists and reads them.
struct DropReader {
    x: RustConnection,
    atoms: Atoms,
    root: u32,
    /// The window under the drag.
    window: u32,
    /// A hidden window that receives the lists.
    own: u32,
    drag: Arc<Mutex<Drag>>,
    ctx: egui::Context,
}

fn watch(window: u32, ctx: egui::Context, drag: Arc<Mutex<Drag>>) -> Result<(), XdndError> {
    let (x, screen) = x11rb::connect(None)?;
    let root = x.setup().roots.get(screen).ok_or("no screen")?.root;
    let atoms = Atoms::new(&x)?.reply()?;
    let own = x.generate_id()?;
    let aux = CreateWindowAux::new().event_mask(EventMask::PROPERTY_CHANGE);
    let class = WindowClass::INPUT_ONLY;
    x.create_window(0, own, root, 0, 0, 1, 1, 0, class, 0, &aux)?
        .check()?;
    let context = record_messages(&x, window)?;
    let reader = Arc::new(DropReader {
        x,
        atoms,
        root,
        window,
        own,
        drag,
        ctx,
    });
    let (messages, _) = x11rb::connect(None)?;
    let listener = Arc::clone(&reader);
    std::thread::spawn(move || {
        if let Err(error) = listener.listen(&messages, context) {
            tracing::warn!(%error, "what is dragged cannot be told any more");
        }
    });
    std::thread::spawn(move || {
        if let Err(error) = reader.receive() {
            tracing::warn!(%error, "what is dropped cannot be read any more");
        }
    });
    Ok(())
}

/// Creates a context that records the client messages of the window's client.
fn record_messages(x: &RustConnection, window: u32) -> Result<u32, XdndError> {
    let record = x.extension_information(record::X11_EXTENSION_NAME)?;
    record.ok_or("it has no RECORD extension")?;
    let (major, minor) = record::X11_XML_VERSION;
    let version = (u16::try_from(major)?, u16::try_from(minor)?);
    x.record_query_version(version.0, version.1)?.reply()?;
    let context = x.generate_id()?;
    let range = record::Range {
        delivered_events: record::Range8 {
            first: CLIENT_MESSAGE_EVENT,
            last: CLIENT_MESSAGE_EVENT,
        },
        ..record::Range::default()
    };
    x.record_create_context(context, 0, &[window], &[range])?
        .check()?;
    Ok(context)
}

impl DropReader {
    /// Handles the messages about drags, as winit gets them.
    fn listen(&self, messages: &RustConnection, context: u32) -> Result<(), XdndError> {
        const FROM_SERVER: u8 = 0;
        for reply in messages.record_enable_context(context)? {
            let reply = reply?;
            if reply.category != FROM_SERVER || reply.client_swapped {
                continue;
            }
            let mut rest = reply.data.as_slice();
            while let Ok((message, after)) = ClientMessageEvent::try_parse(rest) {
                rest = after;
                if message.window == self.window {
                    self.message(&message)?;
                }
            }
        }
        Ok(())
    }

    fn message(&self, message: &ClientMessageEvent) -> Result<(), XdndError> {
        let kind = message.type_;
        let [_, _, point, time, _] = message.data.as_data32();
        let asks = if kind == self.atoms.XdndPosition {
            // Both halves are coordinates on the screen.
            let half = |n: u32| u16::try_from(n & 0xffff).unwrap_or_default().cast_signed();
            let (x, y) = (half(point >> 16), half(point));
            let at = self.x.translate_coordinates(self.root, self.window, x, y)?;
            let at = at.reply()?;
            let position = (f32::from(at.dst_x), f32::from(at.dst_y));
            self.with(|drag| drag.hover(position, time))
        } else {
            self.with(|drag| match kind {
                it if it == self.atoms.XdndEnter => drag.enter(),
                it if it == self.atoms.XdndDrop => drag.drop_here(Instant::now()),
                it if it == self.atoms.XdndLeave => drag.leave(),
                _ => {}
            });
            false
        };
        if asks {
            let Atoms {
                XdndSelection: selection,
                URI_LIST: list,
                PINHOLE_DROPPED: property,
                ..
            } = self.atoms;
            self.x
                .convert_selection(self.own, selection, list, property, time)?;
            self.x.flush()?;
        }
        self.ctx.request_repaint();
        Ok(())
    }

    /// Reads the requested lists, in one piece or in several.
    fn receive(&self) -> Result<(), XdndError> {
        let mut pieces: Option<(u32, Vec<u8>)> = None;
        loop {
            match self.x.wait_for_event()? {
                Event::SelectionNotify(given) if given.requestor == self.own => {
                    pieces = self.given(&given)?;
                }
                Event::PropertyNotify(changed)
                    if changed.atom == self.atoms.PINHOLE_DROPPED
                        && changed.state == Property::NEW_VALUE =>
                {
                    let Some((time, list)) = &mut pieces else {
                        continue;
                    };
                    let piece = self.take_property()?.1;
                    let too_long = list.len() + piece.len() > LIST_BYTES_MAX;
                    if piece.is_empty() || too_long {
                        let list = (!too_long).then_some(list.as_slice());
                        self.read(*time, list);
                        pieces = None;
                    } else {
                        list.extend(piece);
                    }
                }
                _ => {}
            }
        }
    }

    /// What the source answers: the list, or that it comes in pieces.
    fn given(&self, given: &SelectionNotifyEvent) -> Result<Option<(u32, Vec<u8>)>, XdndError> {
        if given.property == x11rb::NONE {
            self.read(given.time, None);
            return Ok(None);
        }
        let (kind, list) = self.take_property()?;
        if kind == self.atoms.INCR {
            return Ok(Some((given.time, Vec::new())));
        }
        self.read(given.time, Some(&list));
        Ok(None)
    }

    /// The property's type and content; deleting it asks for the next piece.
    fn take_property(&self) -> Result<(u32, Vec<u8>), XdndError> {
        let most = u32::try_from(LIST_BYTES_MAX / 4)?;
        let property = self.atoms.PINHOLE_DROPPED;
        let any = AtomEnum::ANY;
        let taken = self
            .x
            .get_property(true, self.own, property, any, 0, most)?
            .reply()?;
        Ok((taken.type_, taken.value))
    }

    fn read(&self, time: u32, list: Option<&[u8]>) {
        let dropped = list.map(paste::dropped);
        self.with(|drag| drag.read(time, dropped));
        self.ctx.request_repaint();
    }

    fn with<T: Default>(&self, change: impl FnOnce(&mut Drag) -> T) -> T {
        let mut drag = self.drag.lock();
        drag.as_mut().map_or_else(|_| T::default(), |d| change(d))
    }
}
