//! The flags that every process has, as a part of its own clap parser.

use std::ffi::OsString;
use std::path::PathBuf;

/// The flags about settings that every process has; flatten them into its clap parser.
///
/// Any setting can also be written as a flag of its dotted name, `--gateway.listen 127.0.0.1:0`, if
/// the arguments pass through [`dotted_flags`] first.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// TOML file with settings [environment: `OBSERVER_CONFIG`]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Set one setting, e.g. gateway.listen=127.0.0.1:0; --gateway.listen 127.0.0.1:0 is the same
    #[arg(long = "set", global = true, value_name = "SECTION.NAME=VALUE", value_parser = override_of)]
    pub overrides: Vec<(String, String)>,

    /// Check the settings, print those in effect with their sources, and end
    #[arg(long, global = true)]
    pub check_config: bool,
}

/// Rewrites `--section.name value` and `--section.name=value` as `--set section.name=value`.
///
/// What follows `--` is left alone. A dotted flag without a value stays as it is, so that the
/// parser refuses it by name.
pub fn dotted_flags(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut rewritten = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--" {
            rewritten.push(arg);
            break;
        }
        let Some(flag) = dotted(&arg) else {
            rewritten.push(arg);
            continue;
        };
        let mut setting = OsString::from(flag);
        if !flag.contains('=') {
            let Some(value) = args.next() else {
                rewritten.push(arg);
                break;
            };
            setting.push("=");
            setting.push(value);
        }
        rewritten.extend(["--set".into(), setting]);
    }
    rewritten.extend(args);
    rewritten
}

/// `section.name` or `section.name=value`, if the argument is such a flag.
fn dotted(arg: &OsString) -> Option<&str> {
    let flag = arg.to_str()?.strip_prefix("--")?;
    let name = flag.split('=').next()?;
    name.contains('.').then_some(flag)
}

fn override_of(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected SECTION.NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: ConfigArgs,
        rest: Vec<String>,
    }

    fn check(args: &[&str], overrides: &[(&str, &str)], rest: &[&str]) {
        let args = std::iter::once("observer").chain(args.iter().copied()).map(OsString::from);
        let cli = Cli::try_parse_from(dotted_flags(args)).unwrap();
        let expected: Vec<_> =
            overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(cli.config.overrides, expected);
        assert_eq!(cli.rest, rest);
    }

    #[test]
    fn dotted_flags_become_overrides() {
        check(&["--a.b", "1", "--c.d.e=x=y", "key"], &[("a.b", "1"), ("c.d.e", "x=y")], &["key"]);
        check(&["--set", "a.b=-1", "--a.c", "--x"], &[("a.b", "-1"), ("a.c", "--x")], &[]);
        check(&["--", "--a.b", "1"], &[], &["--a.b", "1"]);
    }

    #[test]
    fn dotted_flag_without_value_is_wrong_usage() {
        let args = ["observer", "--a.b"].map(OsString::from);
        let error = Cli::try_parse_from(dotted_flags(args)).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--a.b"));
    }
}
