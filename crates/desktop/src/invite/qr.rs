//! A QR code, drawn so that a camera reads it from the screen.

use egui::{Color32, Mesh, Rect, Role, Sense, Shape, Ui, Vec2, WidgetInfo};
use qrcode::{Color, EcLevel, QrCode};

use crate::text;

/// The modules of white on each side that the standard asks for.
const QUIET_ZONE: usize = 4;
/// How large it is at most, in points.
const SIZE_MAX: f32 = 300.0;

/// Which modules of a QR code are dark, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QrModules {
    width: usize,
    dark: Vec<bool>,
}

impl QrModules {
    /// The code of this text; `None` if it does not fit into one.
    pub(super) fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        let width = code.width();
        let dark = code.into_colors().into_iter().map(|it| it == Color::Dark);
        Some(Self {
            width,
            dark: dark.collect(),
        })
    }
}

/// Draws it black on white, whatever the theme is.
#[allow(
    clippy::cast_precision_loss,
    reason = "a code has at most 177 modules in a row"
)]
pub(super) fn show(ui: &mut Ui, code: &QrModules) {
    let modules = (code.width + 2 * QUIET_ZONE) as f32;
    let pixel = 1.0 / ui.ctx().pixels_per_point();
    // Modules of whole pixels have sharp edges.
    let room = ui.available_width().min(SIZE_MAX) / pixel;
    let module = (room / modules).floor().max(1.0) * pixel;
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(modules * module), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, text::QR_CODE));
    let corner = (rect.min / pixel).round() * pixel;
    let mut mesh = Mesh::default();
    let whole = Rect::from_min_size(corner, rect.size());
    mesh.add_colored_rect(whole, Color32::WHITE);
    let places = code.dark.iter().enumerate();
    for (place, _) in places.filter(|(_, dark)| **dark) {
        let column = (place % code.width + QUIET_ZONE) as f32;
        let row = (place / code.width + QUIET_ZONE) as f32;
        let at = corner + Vec2::new(column, row) * module;
        mesh.add_colored_rect(Rect::from_min_size(at, Vec2::splat(module)), Color32::BLACK);
    }
    ui.painter().add(Shape::mesh(mesh));
}
