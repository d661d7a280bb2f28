//! Every colour, size and font of the application, and the few widgets made from them.

use std::sync::Arc;

use egui::{
    Button, Checkbox, Color32, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Frame,
    Margin, Popup, ProgressBar, Response, RichText, Stroke, TextStyle, Theme, Ui, Vec2,
};

use crate::selection::Tick;

/// Half a step of the spacing grid, in points.
pub(crate) const GAP_SMALL: f32 = 4.0;
/// One step: between lines that belong together.
pub(crate) const GAP: f32 = 8.0;
/// Two steps: between things.
pub(crate) const GAP_LARGE: f32 = 16.0;
/// Three steps: between sections, and around everything.
pub(crate) const GAP_SECTION: f32 = 24.0;
/// Height of every button, in points: easy to hit.
pub(crate) const BUTTON_HEIGHT: f32 = 34.0;
/// Left and right of the text of a quiet button.
const QUIET_PADDING: f32 = 10.0;
/// Width of a button that has a picture instead of words.
pub(crate) const ICON_BUTTON: f32 = 38.0;

const SEMIBOLD: &str = "semibold";
const CARD_RADIUS: u8 = 12;
const BUTTON_RADIUS: u8 = 8;

/// The colours of one appearance. There is one accent; warning and danger are
/// kept for what they say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    /// Behind everything.
    pub(crate) background: Color32,
    /// Behind a group of things.
    pub(crate) card: Color32,
    /// Around a card, and between rows.
    pub(crate) line: Color32,
    /// What is read first.
    pub(crate) text: Color32,
    /// What is read second.
    pub(crate) muted: Color32,
    /// The one colour that says "here".
    pub(crate) accent: Color32,
    /// The accent under the pointer.
    pub(crate) accent_hover: Color32,
    /// Text on the accent.
    pub(crate) on_accent: Color32,
    /// The accent as a background.
    pub(crate) accent_tint: Color32,
    /// A plain button.
    pub(crate) button: Color32,
    /// A plain button under the pointer.
    pub(crate) button_hover: Color32,
    /// A warning.
    pub(crate) warning: Color32,
    /// The warning as a background.
    pub(crate) warning_tint: Color32,
    /// A failure.
    pub(crate) danger: Color32,
    /// Behind a text field.
    pub(crate) field: Color32,
}

const LIGHT: Palette = Palette {
    background: Color32::from_rgb(0xF4, 0xF5, 0xF4),
    card: Color32::from_rgb(0xFF, 0xFF, 0xFF),
    line: Color32::from_rgb(0xE1, 0xE5, 0xE4),
    text: Color32::from_rgb(0x17, 0x20, 0x22),
    muted: Color32::from_rgb(0x5A, 0x67, 0x6A),
    accent: Color32::from_rgb(0x0B, 0x72, 0x78),
    accent_hover: Color32::from_rgb(0x0A, 0x62, 0x67),
    on_accent: Color32::from_rgb(0xFF, 0xFF, 0xFF),
    accent_tint: Color32::from_rgb(0xDD, 0xF1, 0xF0),
    button: Color32::from_rgb(0xEC, 0xEF, 0xEE),
    button_hover: Color32::from_rgb(0xE0, 0xE5, 0xE4),
    warning: Color32::from_rgb(0x8A, 0x55, 0x00),
    warning_tint: Color32::from_rgb(0xFD, 0xF1, 0xD8),
    danger: Color32::from_rgb(0xB4, 0x2B, 0x24),
    field: Color32::from_rgb(0xFF, 0xFF, 0xFF),
};

const DARK: Palette = Palette {
    background: Color32::from_rgb(0x12, 0x17, 0x18),
    card: Color32::from_rgb(0x1B, 0x22, 0x24),
    line: Color32::from_rgb(0x2B, 0x35, 0x38),
    text: Color32::from_rgb(0xEA, 0xF0, 0xF0),
    muted: Color32::from_rgb(0x9B, 0xAA, 0xAD),
    accent: Color32::from_rgb(0x4F, 0xC4, 0xC4),
    accent_hover: Color32::from_rgb(0x6D, 0xD3, 0xD2),
    on_accent: Color32::from_rgb(0x04, 0x23, 0x25),
    accent_tint: Color32::from_rgb(0x15, 0x37, 0x3A),
    button: Color32::from_rgb(0x29, 0x33, 0x36),
    button_hover: Color32::from_rgb(0x34, 0x40, 0x43),
    warning: Color32::from_rgb(0xF0, 0xBC, 0x62),
    warning_tint: Color32::from_rgb(0x38, 0x2D, 0x16),
    danger: Color32::from_rgb(0xFF, 0x8F, 0x85),
    field: Color32::from_rgb(0x12, 0x17, 0x18),
};

/// The colours of the appearance in use.
pub(crate) fn palette(ui: &Ui) -> &'static Palette {
    if ui.visuals().dark_mode {
        &DARK
    } else {
        &LIGHT
    }
}

/// A name or a title in a list.
pub(crate) fn title() -> TextStyle {
    TextStyle::Name("title".into())
}

/// A section's heading.
pub(crate) fn section() -> TextStyle {
    TextStyle::Name("section".into())
}

/// Sets fonts, text sizes, spacing and both appearances.
pub(crate) fn install(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    for (theme, palette) in [(Theme::Light, &LIGHT), (Theme::Dark, &DARK)] {
        ctx.style_mut_of(theme, |style| {
            style.text_styles = text_styles();
            set_spacing(style);
            set_colours(&mut style.visuals, palette);
        });
    }
}

fn fonts() -> FontDefinitions {
    static INTER: &[u8] = include_bytes!("../../../assets/fonts/Inter.ttf");
    let mut fonts = FontDefinitions::default();
    let mut semibold = FontData::from_static(INTER);
    semibold.tweak.coords.push("wght", 600.0);
    for (name, data) in [
        ("Inter", FontData::from_static(INTER)),
        (SEMIBOLD, semibold),
    ] {
        fonts.font_data.insert(name.to_owned(), Arc::new(data));
    }
    let fallbacks = fonts
        .families
        .get(&FontFamily::Proportional)
        .cloned()
        .unwrap_or_default();
    for (family, first) in [
        (FontFamily::Proportional, "Inter"),
        (FontFamily::Name(SEMIBOLD.into()), SEMIBOLD),
    ] {
        let mut names = vec![first.to_owned()];
        names.extend(fallbacks.iter().cloned());
        fonts.families.insert(family, names);
    }
    fonts
}

fn text_styles() -> std::collections::BTreeMap<TextStyle, FontId> {
    let semibold = |size| FontId::new(size, FontFamily::Name(SEMIBOLD.into()));
    [
        (TextStyle::Heading, semibold(24.0)),
        (title(), semibold(15.5)),
        (section(), semibold(13.0)),
        (TextStyle::Body, FontId::proportional(14.5)),
        (TextStyle::Button, semibold(13.5)),
        (TextStyle::Small, FontId::proportional(13.0)),
        (TextStyle::Monospace, FontId::monospace(13.0)),
    ]
    .into()
}

fn set_spacing(style: &mut egui::Style) {
    let spacing = &mut style.spacing;
    spacing.item_spacing = Vec2::new(GAP, GAP_SMALL);
    spacing.button_padding = Vec2::new(14.0, 6.0);
    spacing.interact_size.y = BUTTON_HEIGHT;
    spacing.icon_width = 18.0;
    spacing.icon_width_inner = 10.0;
    spacing.icon_spacing = GAP;
    spacing.scroll = egui::style::ScrollStyle::thin();
    // The scroll bar is over the margin, so nothing shifts when a list grows.
    spacing.scroll.floating_allocated_width = 0.0;
    style.interaction.selectable_labels = false;
    // Without animations, a frame is drawn only when something has changed.
    style.animation_time = 0.0;
    style.scroll_animation = egui::style::ScrollAnimation::none();
}

fn set_colours(visuals: &mut egui::Visuals, palette: &Palette) {
    visuals.panel_fill = palette.background;
    visuals.window_fill = palette.card;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(CARD_RADIUS);
    visuals.extreme_bg_color = palette.field;
    visuals.text_edit_bg_color = Some(palette.field);
    visuals.weak_text_color = Some(palette.muted);
    visuals.hyperlink_color = palette.accent;
    visuals.warn_fg_color = palette.warning;
    visuals.error_fg_color = palette.danger;
    visuals.selection.bg_fill = palette.accent_tint;
    visuals.selection.stroke = Stroke::new(1.5, palette.accent);
    visuals.text_cursor.blink = false;
    visuals.text_cursor.stroke = Stroke::new(2.0, palette.accent);
    let widgets = &mut visuals.widgets;
    for (state, fill, stroke) in [
        (&mut widgets.noninteractive, palette.card, palette.line),
        (&mut widgets.inactive, palette.button, palette.line),
        (&mut widgets.hovered, palette.button_hover, palette.line),
        (&mut widgets.active, palette.button_hover, palette.accent),
        (&mut widgets.open, palette.button_hover, palette.line),
    ] {
        state.bg_fill = fill;
        state.weak_bg_fill = fill;
        state.bg_stroke = Stroke::new(1.0, stroke);
        state.fg_stroke = Stroke::new(1.0, palette.text);
        state.corner_radius = CornerRadius::same(BUTTON_RADIUS);
        state.expansion = 0.0;
    }
    // "active" is also what a widget with the keyboard's focus looks like.
    widgets.active.bg_stroke.width = 2.0;
}

/// A group of things that belong together.
pub(crate) fn card(ui: &Ui) -> Frame {
    let palette = palette(ui);
    Frame::new()
        .fill(palette.card)
        .stroke(Stroke::new(1.0, palette.line))
        .corner_radius(CARD_RADIUS)
        .inner_margin(Margin::same(16))
}

/// Something the user must not miss.
pub(crate) fn warning_card(ui: &Ui) -> Frame {
    let palette = palette(ui);
    card(ui)
        .fill(palette.warning_tint)
        .stroke(Stroke::new(1.0, palette.warning.gamma_multiply(0.4)))
}

/// The frame of a sheet.
pub(crate) fn sheet(ui: &egui::Style) -> Frame {
    Frame::popup(ui)
        .fill(ui.visuals.window_fill)
        .corner_radius(16)
        .inner_margin(Margin::same(24))
}

/// The button for the main action.
pub(crate) fn primary_button(ui: &mut Ui, text: &str) -> Response {
    primary_button_sized(ui, text, Vec2::new(0.0, BUTTON_HEIGHT))
}

/// [`primary_button`], at least as large as `size`.
pub(crate) fn primary_button_sized(ui: &mut Ui, text: &str, size: Vec2) -> Response {
    let palette = palette(ui);
    ui.scope(|ui| {
        let focus = palette.text;
        let widgets = &mut ui.visuals_mut().widgets;
        for (state, fill) in [
            (&mut widgets.inactive, palette.accent),
            (&mut widgets.hovered, palette.accent_hover),
            (&mut widgets.active, palette.accent_hover),
        ] {
            state.weak_bg_fill = fill;
            state.bg_stroke.color = fill;
            state.fg_stroke.color = palette.on_accent;
        }
        widgets.active.bg_stroke.color = focus;
        ui.add(labelled(text).min_size(size))
    })
    .inner
}

fn labelled(text: &str) -> Button<'_> {
    Button::new(RichText::new(text).text_style(TextStyle::Button))
}

/// A button for another action.
pub(crate) fn button(ui: &mut Ui, text: &str) -> Response {
    ui.add(labelled(text).min_size(Vec2::new(0.0, BUTTON_HEIGHT)))
}

/// A button for an action that need not catch the eye.
pub(crate) fn quiet_button(ui: &mut Ui, text: &str) -> Response {
    let palette = palette(ui);
    ui.scope(|ui| {
        let widgets = &mut ui.visuals_mut().widgets;
        widgets.inactive.weak_bg_fill = Color32::TRANSPARENT;
        widgets.inactive.bg_stroke = Stroke::NONE;
        widgets.inactive.fg_stroke.color = palette.muted;
        widgets.hovered.bg_stroke = Stroke::NONE;
        ui.spacing_mut().button_padding.x = QUIET_PADDING;
        ui.add(labelled(text).min_size(Vec2::new(0.0, BUTTON_HEIGHT)))
    })
    .inner
}

/// How wide a [`quiet_button`] is.
pub(crate) fn quiet_button_width(ui: &Ui, text: &str) -> f32 {
    width_of(ui, text, &TextStyle::Button) + 2.0 * QUIET_PADDING
}

/// A menu behind a quiet button. Returns the chosen entry.
pub(crate) fn quiet_menu<T, const N: usize>(
    ui: &mut Ui,
    text: &str,
    things: [(&str, T); N],
) -> Option<T> {
    let button = quiet_button(ui, text);
    let chosen = Popup::menu(&button).show(|ui| {
        ui.spacing_mut().button_padding = Vec2::new(10.0, 6.0);
        let mut chosen = None;
        for (words, thing) in things {
            if ui.button(words).clicked() {
                chosen = Some(thing);
            }
        }
        chosen
    });
    chosen?.inner
}

/// A box to tick. The box of a folder can be ticked in part.
pub(crate) fn tick_box(ui: &mut Ui, tick: Tick, words: RichText) -> Response {
    let words = words.color(palette(ui).text);
    let mut shown = tick == Tick::Whole;
    let part = tick == Tick::Part;
    let add = |ui: &mut Ui| ui.add(Checkbox::new(&mut shown, words).indeterminate(part));
    marked(ui, tick != Tick::None, add)
}

/// One of several to choose from.
pub(crate) fn radio(ui: &mut Ui, chosen: bool, words: &str) -> Response {
    let words = RichText::new(words).color(palette(ui).text);
    marked(ui, chosen, |ui| ui.radio(chosen, words))
}

/// Makes boxes visible, and fills a chosen one.
fn marked(ui: &mut Ui, chosen: bool, add: impl FnOnce(&mut Ui) -> Response) -> Response {
    let palette = palette(ui);
    let (fill, outline) = if chosen {
        (palette.accent, palette.accent)
    } else {
        (palette.field, palette.muted)
    };
    ui.scope(|ui| {
        let widgets = &mut ui.visuals_mut().widgets;
        for state in [
            &mut widgets.inactive,
            &mut widgets.hovered,
            &mut widgets.active,
        ] {
            state.bg_fill = fill;
            state.bg_stroke.color = outline;
            state.corner_radius = CornerRadius::same(4);
            state.fg_stroke = Stroke::new(1.5, palette.on_accent);
        }
        widgets.active.bg_stroke = Stroke::new(2.0, palette.text);
        add(ui)
    })
    .inner
}

/// The progress of something, from 0 to 1.
pub(crate) fn progress_bar(ui: &mut Ui, share: f32) -> Response {
    let palette = palette(ui);
    ui.scope(|ui| {
        ui.visuals_mut().extreme_bg_color = palette.line;
        ui.add(
            ProgressBar::new(share)
                .desired_height(6.0)
                .fill(palette.accent),
        )
    })
    .inner
}

/// Text that is read second.
pub(crate) fn muted(ui: &Ui, text: impl Into<String>) -> RichText {
    RichText::new(text)
        .text_style(TextStyle::Small)
        .color(palette(ui).muted)
}

/// A heading over a list.
pub(crate) fn section_heading(ui: &mut Ui, text: &str) -> Response {
    let color = palette(ui).muted;
    ui.label(RichText::new(text).text_style(section()).color(color))
}

/// How wide `text` is in `style`, in points.
pub(crate) fn width_of(ui: &Ui, text: &str, style: &TextStyle) -> f32 {
    let font = style.resolve(ui.style());
    ui.painter()
        .layout_no_wrap(text.to_owned(), font, Color32::PLACEHOLDER)
        .size()
        .x
}

/// `text`, shortened in the middle until it fits in `width`, so that the
/// extension of a file's name stays in sight.
pub(crate) fn elided(ui: &Ui, text: &str, style: &TextStyle, width: f32) -> String {
    // No window shows more than this many characters in a line.
    const LONGEST_CHARS: usize = 400;
    // An extension, a double one too.
    const TAIL_CHARS: usize = 9;
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= LONGEST_CHARS && width_of(ui, text, style) <= width {
        return text.to_owned();
    }
    let shortened = |kept: usize| {
        let tail = (kept / 2).max(TAIL_CHARS).min(kept);
        let head: String = chars.iter().take(kept - tail).collect();
        let tail: String = chars.iter().skip(chars.len() - tail).collect();
        format!("{head}…{tail}")
    };
    let (mut fits, mut too_long) = (0, chars.len().min(LONGEST_CHARS));
    while fits + 1 < too_long {
        let middle = usize::midpoint(fits, too_long);
        if width_of(ui, &shortened(middle), style) <= width {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    shortened(fits)
}
