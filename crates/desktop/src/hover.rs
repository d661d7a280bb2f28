//! Where a file hovers.
//!
//! While a file is dragged over the window, winit reports no pointer position.
//! So the window system is asked for it, only then, and the answer is handed to
//! egui as if the pointer had moved: hovered peers light up and drops land.

use std::time::Duration;

use egui::{Event, Pos2, RawInput};

/// How often the pointer is looked for while files hover.
const EVERY: Duration = Duration::from_millis(30);

/// Finds the pointer while files hover over one window.
pub(crate) struct Hover {
    pointer: Option<platform::Pointer>,
    hovering: bool,
}

impl Hover {
    /// For the window that is being created.
    pub(crate) fn new(cc: &eframe::CreationContext<'_>) -> Self {
        Self {
            pointer: platform::Pointer::new(cc),
            hovering: false,
        }
    }

    /// Puts the pointer's position into the input while files hover or drop.
    pub(crate) fn amend(&mut self, ctx: &egui::Context, raw: &mut RawInput) {
        let hovering = !raw.hovered_files.is_empty();
        let began = hovering && !self.hovering;
        let left = !hovering && self.hovering && raw.dropped_files.is_empty();
        self.hovering = hovering;
        if hovering || !raw.dropped_files.is_empty() {
            match self.position(ctx) {
                Some(position) => raw.events.push(Event::PointerMoved(position)),
                // What was known of the pointer dates from before the drag.
                None if began => raw.events.push(Event::PointerGone),
                None => {}
            }
        } else if left {
            raw.events.push(Event::PointerGone);
        }
        if hovering && self.pointer.is_some() {
            ctx.request_repaint_after(EVERY);
        }
    }

    fn position(&self, ctx: &egui::Context) -> Option<Pos2> {
        let (x, y) = self.pointer.as_ref()?.position()?;
        let scale = ctx.pixels_per_point();
        Some(Pos2::new(x / scale, y / scale))
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use winit::raw_window_handle::{HasWindowHandle as _, RawWindowHandle};
    use x11rb::protocol::xproto::ConnectionExt as _;
    use x11rb::rust_connection::RustConnection;

    /// A connection to the X server of its own. Under Wayland there is none:
    /// no file can be dragged onto a winit window there.
    pub(super) struct Pointer {
        connection: RustConnection,
        window: u32,
    }

    impl Pointer {
        pub(super) fn new(cc: &eframe::CreationContext<'_>) -> Option<Self> {
            let window = match cc.window_handle().ok()?.as_raw() {
                RawWindowHandle::Xlib(handle) => u32::try_from(handle.window).ok()?,
                RawWindowHandle::Xcb(handle) => handle.window.get(),
                _ => return None,
            };
            match x11rb::connect(None) {
                Ok((connection, _)) => Some(Self { connection, window }),
                Err(error) => {
                    tracing::warn!(%error, "drops will ask to whom: no second connection to the X server");
                    None
                }
            }
        }

        /// In physical pixels from the window's upper left corner. One local
        /// round trip, well under a millisecond.
        pub(super) fn position(&self) -> Option<(f32, f32)> {
            let reply = self
                .connection
                .query_pointer(self.window)
                .ok()?
                .reply()
                .ok()?;
            reply
                .same_screen
                .then(|| (f32::from(reply.win_x), f32::from(reply.win_y)))
        }
    }
}

#[cfg(any(windows, target_os = "macos"))]
mod platform {
    use std::sync::Arc;

    use winit::window::Window;

    /// The window, to tell where it lies.
    pub(super) struct Pointer(Arc<Window>);

    impl Pointer {
        pub(super) fn new(cc: &eframe::CreationContext<'_>) -> Option<Self> {
            cc.winit_window().cloned().map(Self)
        }

        /// In physical pixels from the window's upper left corner.
        #[cfg(windows)]
        #[allow(unsafe_code, reason = "there is no safe way to ask")]
        pub(super) fn position(&self) -> Option<(f32, f32)> {
            use windows_sys::Win32::Foundation::POINT;
            use windows_sys::Win32::UI::WindowsAndMessaging::GetCursorPos;
            let mut point = POINT { x: 0, y: 0 };
            // SAFETY: the call writes to `point`, which outlives it, and reads nothing.
            let told = unsafe { GetCursorPos(&raw mut point) } != 0;
            let origin = self.0.inner_position().ok()?;
            told.then(|| ((point.x - origin.x) as f32, (point.y - origin.y) as f32))
        }

        /// In physical pixels from the window's upper left corner.
        #[cfg(target_os = "macos")]
        pub(super) fn position(&self) -> Option<(f32, f32)> {
            // In points from the lower left corner of the first screen.
            let point = objc2_app_kit::NSEvent::mouseLocation();
            let screen = self.0.primary_monitor()?;
            let height = screen
                .size()
                .to_logical::<f64>(screen.scale_factor())
                .height;
            let scale = self.0.scale_factor();
            let origin = self.0.inner_position().ok()?.to_logical::<f64>(scale);
            let (x, y) = (point.x - origin.x, height - point.y - origin.y);
            #[allow(clippy::cast_possible_truncation, reason = "points on a screen")]
            Some(((x * scale) as f32, (y * scale) as f32))
        }
    }
}
