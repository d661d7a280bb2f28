//! Where a file is dragged, and what is dropped.
//!
//! winit reports no pointer position while a file is dragged over the window. So the
//! window system is asked for it, only then, and egui gets the answer as if the pointer
//! had moved: peers light up and drops land. Under X11 the dropped list is read here as
//! well (`xdnd.rs`).

#[cfg(not(target_os = "linux"))]
use std::time::Duration;

use egui::{Event, Pos2, RawInput};

use crate::paste::DroppedFiles;

/// How often the pointer is read while files hover.
#[cfg(not(target_os = "linux"))]
const EVERY: Duration = Duration::from_millis(30);

/// Follows what is dragged over one window.
pub(crate) struct Hover {
    #[cfg(target_os = "linux")]
    watch: Option<crate::xdnd::DragWatch>,
    #[cfg(not(target_os = "linux"))]
    pointer: Option<platform::Pointer>,
    hovering: bool,
    fallen: Option<DroppedFiles>,
}

impl Hover {
    /// For the window that is being created.
    pub(crate) fn new(cc: &eframe::CreationContext<'_>) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            watch: crate::xdnd::DragWatch::new(cc),
            #[cfg(not(target_os = "linux"))]
            pointer: platform::Pointer::new(cc),
            hovering: false,
            fallen: None,
        }
    }

    /// Puts the pointer's position into the input while files hover or drop.
    pub(crate) fn amend(&mut self, ctx: &egui::Context, raw: &mut RawInput) {
        let position = self.position(ctx, raw);
        let fell = self.fallen.is_some() || !raw.dropped_files.is_empty();
        let hovering = !raw.hovered_files.is_empty();
        let began = hovering && !self.hovering;
        let left = !hovering && self.hovering && !fell;
        self.hovering = hovering;
        if hovering || fell {
            match position {
                Some((x, y)) => {
                    let scale = ctx.pixels_per_point();
                    let position = Pos2::new(x / scale, y / scale);
                    raw.events.push(Event::PointerMoved(position));
                }
                // An earlier position is from before the drag.
                None if began => raw.events.push(Event::PointerGone),
                None => {}
            }
        } else if left {
            raw.events.push(Event::PointerGone);
        }
    }

    /// Takes what was dropped since the last call.
    pub(crate) const fn take_fallen(&mut self) -> Option<DroppedFiles> {
        self.fallen.take()
    }

    /// In physical pixels from the window's upper left corner. Replaces what winit
    /// reports about drags.
    #[cfg(target_os = "linux")]
    fn position(&mut self, ctx: &egui::Context, raw: &mut RawInput) -> Option<(f32, f32)> {
        let look = self.watch.as_ref()?.look();
        let hovered = look.hovers.then(egui::HoveredFile::default);
        raw.hovered_files = hovered.into_iter().collect();
        raw.dropped_files.clear();
        if let Some(wait) = look.again_in {
            ctx.request_repaint_after(wait);
        }
        self.fallen = look.fallen.or(self.fallen.take());
        look.position
    }

    /// In physical pixels from the window's upper left corner.
    #[cfg(not(target_os = "linux"))]
    fn position(&mut self, ctx: &egui::Context, raw: &mut RawInput) -> Option<(f32, f32)> {
        if raw.hovered_files.is_empty() && raw.dropped_files.is_empty() {
            return None;
        }
        let pointer = self.pointer.as_ref()?;
        ctx.request_repaint_after(EVERY);
        pointer.position()
    }
}

#[cfg(any(windows, target_os = "macos"))]
mod platform {
    use std::sync::Arc;

    use winit::window::Window;

    /// The window, for its position.
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
