//! The dashboard is embedded from `dashboard/dist`, which `npm run build` makes. Without it there is
//! an empty folder, so that the crate builds without Node, and a rebuild when it is filled.

fn main() -> std::io::Result<()> {
    std::fs::create_dir_all("dashboard/dist")?;
    println!("cargo::rerun-if-changed=dashboard/dist");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
