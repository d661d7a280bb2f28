//! The icons of the application, drawn as shapes.

use std::f32::consts::TAU;

use egui::{Button, Color32, Painter, Pos2, Response, Sense, Shape, Stroke, Ui, Vec2};

use crate::theme::{self, palette};

/// An icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Icon {
    /// Success.
    Check,
    /// Failure.
    Cross,
    /// Paused.
    Bars,
    /// A warning.
    Warning,
    /// Sending.
    Up,
    /// Receiving.
    Down,
    /// A folder.
    Folder,
    /// A message.
    Bubble,
}

fn point(center: Pos2, radius: f32, turn: f32) -> Pos2 {
    center + radius * Vec2::angled(turn * TAU)
}

/// The mark of Pinhole: an aperture with a small bright opening.
pub(crate) fn aperture(ui: &mut Ui, size: f32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(size), Sense::hover());
    let (palette, painter, center) = (palette(ui), ui.painter(), rect.center());
    let radius = size / 2.0;
    painter.circle_filled(center, radius, palette.accent);
    let opening = 0.38 * radius;
    let blade = Stroke::new(0.025 * size, palette.background);
    for corner in 0..6_u8 {
        let turn = f32::from(corner) / 6.0;
        let (from, next) = (
            point(center, opening, turn),
            point(center, opening, turn + 1.0 / 6.0),
        );
        let along = (next - from).normalized();
        // From the opening's corner along its side to the rim.
        let to_rim = rim_distance(from - center, along, radius);
        painter.line_segment([from, from + along * to_rim], blade);
    }
    let hexagon = (0..6_u8)
        .map(|corner| point(center, opening, f32::from(corner) / 6.0))
        .collect();
    painter.add(Shape::convex_polygon(hexagon, palette.background, blade));
}

/// How far it is from `start` in `direction` to a circle around the origin.
fn rim_distance(start: Vec2, direction: Vec2, radius: f32) -> f32 {
    let along = start.dot(direction);
    (along * along - start.length_sq() + radius * radius).sqrt() - along
}

/// A round icon that shows the outcome or direction of a transfer.
pub(crate) fn badge(ui: &mut Ui, icon: Icon, color: Color32) {
    const SIZE: f32 = 36.0;
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(SIZE), Sense::hover());
    let (painter, center) = (ui.painter(), rect.center());
    painter.circle_filled(center, SIZE / 2.0, color.gamma_multiply(0.14));
    draw(painter, center, icon, Stroke::new(2.0, color));
}

/// Draws an icon alone, about 16 points wide.
pub(crate) fn draw(painter: &Painter, center: Pos2, icon: Icon, stroke: Stroke) {
    let at = |x: f32, y: f32| center + Vec2::new(x, y);
    match icon {
        Icon::Check => line(
            painter,
            vec![at(-6.0, 0.5), at(-1.5, 5.0), at(7.0, -5.0)],
            stroke,
        ),
        Icon::Cross => {
            line(painter, vec![at(-5.0, -5.0), at(5.0, 5.0)], stroke);
            line(painter, vec![at(-5.0, 5.0), at(5.0, -5.0)], stroke);
        }
        Icon::Bars => {
            for x in [-3.5, 3.5] {
                line(painter, vec![at(x, -6.0), at(x, 6.0)], stroke);
            }
        }
        Icon::Warning => {
            line(painter, vec![at(0.0, -7.0), at(0.0, 2.0)], stroke);
            painter.circle_filled(at(0.0, 6.5), 1.5, stroke.color);
        }
        Icon::Up | Icon::Down => {
            let sign = if icon == Icon::Up { 1.0 } else { -1.0 };
            line(
                painter,
                vec![at(0.0, 7.0 * sign), at(0.0, -7.0 * sign)],
                stroke,
            );
            let head = vec![
                at(-5.5, -1.5 * sign),
                at(0.0, -7.0 * sign),
                at(5.5, -1.5 * sign),
            ];
            line(painter, head, stroke);
        }
        Icon::Folder => {
            let outline = [
                (-8.0, -6.0),
                (-3.0, -6.0),
                (-1.0, -3.5),
                (8.0, -3.5),
                (8.0, 6.0),
                (-8.0, 6.0),
            ];
            closed(painter, outline.map(|(x, y)| at(x, y)), stroke);
        }
        Icon::Bubble => {
            let outline = [
                (-8.0, -6.5),
                (8.0, -6.5),
                (8.0, 4.0),
                (-1.0, 4.0),
                (-4.5, 7.5),
                (-4.5, 4.0),
                (-8.0, 4.0),
            ];
            closed(painter, outline.map(|(x, y)| at(x, y)), stroke);
        }
    }
}

/// A button with an icon; `name` is its accessible name.
pub(crate) fn button(ui: &mut Ui, icon: Icon, enabled: bool, name: String) -> Response {
    let button = Button::new("").min_size(Vec2::new(theme::ICON_BUTTON, theme::BUTTON_HEIGHT));
    let response = ui.add_enabled(enabled, button);
    let color = match palette(ui) {
        palette if enabled => palette.text,
        palette => palette.muted.gamma_multiply(0.5),
    };
    draw(
        ui.painter(),
        response.rect.center(),
        icon,
        Stroke::new(1.5, color),
    );
    response
        .on_hover_text(&name)
        .on_disabled_hover_text(&name)
        .accessible_name(name)
}

fn closed<const N: usize>(painter: &Painter, points: [Pos2; N], stroke: Stroke) {
    painter.add(Shape::closed_line(points.into(), stroke));
}

fn line(painter: &Painter, points: Vec<Pos2>, stroke: Stroke) {
    painter.add(Shape::line(points, stroke));
}

/// A peer's first letter in a circle, filled while `lit`.
pub(crate) fn monogram(ui: &Ui, center: Pos2, name: &str, lit: bool) {
    const RADIUS: f32 = 20.0;
    let palette = palette(ui);
    let (fill, ink) = if lit {
        (palette.accent, palette.on_accent)
    } else {
        (palette.accent_tint, palette.accent)
    };
    let painter = ui.painter();
    painter.circle_filled(center, RADIUS, fill);
    let letter: String = name.chars().take(1).flat_map(char::to_uppercase).collect();
    painter.text(
        center,
        egui::Align2::CENTER_CENTER,
        letter,
        theme::title().resolve(ui.style()),
        ink,
    );
}

/// A dot as high as a line of text.
pub(crate) fn dot(ui: &mut Ui, color: Color32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::new(8.0, 16.0), Sense::hover());
    ui.painter().circle_filled(rect.center(), 4.0, color);
}
