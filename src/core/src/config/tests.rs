//! Tests of the settings.

use super::{Config, Limit, Plans, Report, SETTINGS, Window, settings_markdown};
use crate::units::Size;

fn read(pairs: &[(&str, &str)]) -> (Config, Vec<String>) {
    Config::read(|name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    })
}

#[test]
fn nothing_set_gives_the_defaults_silently() {
    assert_eq!(read(&[]), (Config::default(), vec![]));
}

#[test]
fn the_default_column_is_the_default() {
    let pairs: Vec<_> = SETTINGS.iter().map(|s| (s.name, s.default)).collect();
    assert_eq!(read(&pairs), (Config::default(), vec![]));
}

#[test]
fn every_setting_is_read() {
    let (config, warnings) = read(&[
        ("AUTOOFFLOAD", "0"),
        ("AUTOOFFLOAD_VRAM", "75%"),
        ("AUTOOFFLOAD_HEADROOM", "100M"),
        ("AUTOOFFLOAD_WINDOW", "8"),
        ("AUTOOFFLOAD_PIN", "0"),
        ("AUTOOFFLOAD_RAM", "16G"),
        ("AUTOOFFLOAD_REPORT", "enlarged"),
        ("AUTOOFFLOAD_LOG", "debug"),
        ("AUTOOFFLOAD_PLANS", "/tmp/orders"),
        ("AUTOOFFLOAD_VERIFY", "1"),
        ("AUTOOFFLOAD_STATS", "/tmp/s-%p.json"),
        ("AUTOOFFLOAD_TRACE", "/tmp/t-%p.json"),
        ("AUTOOFFLOAD_METRICS", "unix:/tmp/m-%p"),
    ]);
    assert!(warnings.is_empty());
    assert!(!config.enabled && !config.pin && config.verify);
    assert_eq!(config.vram, Limit::Given(Size::Percent(75.0)));
    assert_eq!(config.headroom, Some(100 << 20));
    assert_eq!(config.window, Window::Chunks(8));
    assert_eq!(config.ram, Limit::Given(Size::Bytes(16 << 30)));
    assert_eq!(config.report, Report::Enlarged);
    assert_eq!(config.plans, Plans::In("/tmp/orders".into()));
    assert_eq!(config.stats_path(42).as_deref(), Some("/tmp/s-42.json"));
    assert_eq!(config.trace_path(42).as_deref(), Some("/tmp/t-42.json"));
    assert_eq!(config.metrics_endpoint(42).as_deref(), Some("unix:/tmp/m-42"));
    assert_eq!(read(&[("AUTOOFFLOAD_WINDOW", "64M")]).0.window, Window::Bytes(64 << 20));
}

#[test]
fn a_bad_value_warns_and_keeps_the_default() {
    const ANY_TEXT: [&str; 3] = ["AUTOOFFLOAD_LOG", "AUTOOFFLOAD_STATS", "AUTOOFFLOAD_TRACE"];
    for s in SETTINGS.iter().filter(|s| !ANY_TEXT.contains(&s.name)) {
        let (config, warnings) = read(&[(s.name, "banana")]);
        assert_eq!(config, Config::default(), "{}", s.name);
        assert_eq!(warnings.len(), 1, "{}", s.name);
        assert!(warnings[0].starts_with(&format!("{}=banana: ", s.name)), "{}", warnings[0]);
    }
}

#[test]
fn metrics_are_for_this_machine_only() {
    let endpoint = |text: &str| read(&[("AUTOOFFLOAD_METRICS", text)]).0.metrics;
    assert_eq!(endpoint("[::1]:7").as_deref(), Some("[::1]:7"));
    assert_eq!(endpoint("localhost:1").as_deref(), Some("127.0.0.1:1"));
    for text in ["0.0.0.0:9400", "192.168.0.1:9400", "[::]:9400", "9400", "unix:", "example:80"] {
        let (config, warnings) = read(&[("AUTOOFFLOAD_METRICS", text)]);
        assert_eq!((config.metrics, warnings.len()), (None, 1), "{text}");
    }
}

#[test]
fn only_live_settings_change_later() {
    let mut config = Config::default();
    config.set("vram", "8G").unwrap();
    assert_eq!(config.vram, Limit::Given(Size::Bytes(8 << 30)));
    config.set("AUTOOFFLOAD_WINDOW", "4").unwrap();
    assert!(config.set("pin", "0").is_err());
    assert!(config.set("nonsense", "0").is_err());
    assert!(config.set("vram", "many").is_err());
    assert_eq!(config.vram, Limit::Given(Size::Bytes(8 << 30)));
}

#[test]
fn budgets() {
    const G: u64 = 1 << 30;
    let (config, _) = read(&[("AUTOOFFLOAD_VRAM", "8G")]);
    assert_eq!(config.budget_bytes(16 * G, 16 * G, 0), 8 * G);
    assert_eq!(config.budget_bytes(4 * G, 4 * G, 0), 4 * G);
    let (config, _) = read(&[("AUTOOFFLOAD_VRAM", "25%")]);
    assert_eq!(config.budget_bytes(16 * G, 1, 0), 4 * G);
    let auto = Config::default();
    assert_eq!(auto.budget_bytes(16 * G, 15 * G, G), 16 * G - (512 << 20));
    assert_eq!(auto.budget_bytes(G, G, 0), G - G / 20);
}

#[test]
fn the_echo_and_the_table_name_every_setting() {
    let (echo, table) = (Config::default().echo(), settings_markdown());
    for s in SETTINGS {
        assert!(echo.contains(s.name) && table.contains(s.name));
    }
}

#[test]
fn the_readme_has_this_table() {
    let readme = include_str!("../../../../README.md");
    let table = settings_markdown();
    assert!(readme.contains(&table), "put this into README.md:\n{table}");
}
