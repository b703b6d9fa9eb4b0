//! Devices: who is there, who was, and who is forgotten.

use observer_wire::ProjectId;
use observer_wire::event::GoneState;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{bound, from_sql, reports, to_sql};
use crate::sqlite::failure::Failure;
use crate::vars::{Device, DeviceValues, Ended, GONE_DEVICES_MAX};

const COLUMNS: &str = "device, named, about, session, epoch, gateway, ended < epoch, since, seq,
    background, gone";

/// Sessions of one device that are looked at when one of them comes or goes.
const SESSIONS_MAX: i64 = 64;

/// Whatever the order in which sign-ins and ends of sockets arrive, the row is the same: the newest
/// sign-in describes the device, the newest end says whether it is over.
pub(super) fn sign_in(
    db: &Connection,
    project: ProjectId,
    device: &Device,
    devices_max: usize,
) -> Result<Vec<String>, Failure> {
    let known = "SELECT 1 FROM devices WHERE project = ?1 AND device = ?2 AND known";
    let known = db.prepare_cached(known)?.exists([project.as_str(), &device.device])?;
    let upsert = "INSERT INTO devices
            (project, device, known, named, about, session, epoch, ended, gateway, since,
             reset_epoch, reset_seq, seq, background)
         VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, iif(?7, 0, ?6), ?8, ?9, 0, 0, ?10, ?11)
         ON CONFLICT (project, device) DO UPDATE SET
            known = 1, named = excluded.named, about = excluded.about, session = excluded.session,
            gateway = excluded.gateway, seq = excluded.seq, background = excluded.background,
            since = iif(epoch < excluded.epoch AND ended < excluded.epoch, excluded.since, since),
            epoch = excluded.epoch
         WHERE (devices.epoch, devices.seq) <= (excluded.epoch, excluded.seq)";
    db.prepare_cached(upsert)?.execute(params![
        project.as_str(),
        device.device,
        device.named,
        serde_json::to_string(&device.about).expect("plain structs always serialise"),
        device.session,
        to_sql(device.epoch),
        device.online,
        device.gateway,
        device.since,
        to_sql(device.seq),
        device.background
    ])?;
    let mut over = Vec::new();
    for (session, is_over, epoch) in other_sessions(db, project, &device.device)? {
        if is_over && epoch < device.epoch {
            hide(db, project, &session)?;
            over.push(session);
        }
    }
    if known {
        return Ok(over);
    }
    let excess = "SELECT device FROM devices WHERE project = ?1 AND device <> ?2 AND known
         ORDER BY ended < epoch DESC, since DESC, device DESC LIMIT -1 OFFSET ?3";
    let kept = bound(devices_max.saturating_sub(1));
    let excess: Vec<String> = db
        .prepare_cached(excess)?
        .query_map(params![project.as_str(), device.device, kept], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    forget(db, project, &excess)?;
    over.extend(excess);
    Ok(over)
}

/// Entries of the same device for other sessions: id, whether it is over, and its sign-in.
fn other_sessions(
    db: &Connection,
    project: ProjectId,
    id: &str,
) -> Result<Vec<(String, bool, u64)>, Failure> {
    let Some((device, _)) = id.split_once('\t') else { return Ok(Vec::new()) };
    // The newline is the character behind the tab.
    let (from, to) = (format!("{device}\t"), format!("{device}\n"));
    let select = "SELECT device, epoch <= ended, epoch FROM devices
         WHERE project = ?1 AND ?2 <= device AND device < ?3 AND device <> ?4 AND known LIMIT ?5";
    let mut select = db.prepare_cached(select)?;
    let rows = select.query_map(params![project.as_str(), from, to, id, SESSIONS_MAX], |row| {
        Ok((row.get(0)?, row.get(1)?, from_sql(row.get(2)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shows an entry to nobody any more. Its end stays known for a while, among those of devices without a
/// name, so that its sign-in cannot come back late.
fn hide(db: &Connection, project: ProjectId, device: &str) -> Result<(), Failure> {
    let key = [project.as_str(), device];
    db.prepare_cached("DELETE FROM reported WHERE project = ?1 AND device = ?2")?.execute(key)?;
    let update = "UPDATE devices SET known = 0, named = 0 WHERE project = ?1 AND device = ?2";
    db.prepare_cached(update)?.execute(key)?;
    Ok(())
}

pub(super) fn sign_out(
    db: &Connection,
    project: ProjectId,
    device: &str,
    ended: &Ended,
) -> Result<Vec<String>, Failure> {
    let Ended { epoch, at, state } = *ended;
    let state = state.name();
    let update = "UPDATE devices SET ended = ?3, gone = ?5, since = iif(epoch <= ?3, ?4, since)
         WHERE project = ?1 AND device = ?2 AND ended < ?3";
    let row = params![project.as_str(), device, to_sql(epoch), at, state];
    let changed = db.prepare_cached(update)?.execute(row)?;
    if changed == 0 {
        // Its sign-in may come late: the end is remembered for it.
        let insert = "INSERT INTO devices
                (project, device, known, named, session, epoch, ended, gateway, since,
                 reset_epoch, reset_seq, gone)
             VALUES (?1, ?2, 0, 0, '', 0, ?3, '', ?4, 0, 0, ?5) ON CONFLICT DO NOTHING";
        db.prepare_cached(insert)?.execute(row)?;
    }
    let mut shown = Vec::new();
    let sessions = other_sessions(db, project, device)?;
    if sessions.iter().any(|(_, is_over, other)| !is_over && epoch < *other) {
        let is_over = "SELECT 1 FROM devices
             WHERE project = ?1 AND device = ?2 AND known AND epoch <= ended";
        if db.prepare_cached(is_over)?.exists([project.as_str(), device])? {
            hide(db, project, device)?;
            shown.push(device.to_owned());
        }
    }
    let gone =
        "SELECT device, known FROM devices WHERE project = ?1 AND named = 0 AND epoch <= ended
         ORDER BY since DESC, device DESC LIMIT -1 OFFSET ?2";
    let mut select = db.prepare_cached(gone)?;
    let mut rows = select.query(params![project.as_str(), bound(GONE_DEVICES_MAX)])?;
    let mut gone = Vec::<String>::new();
    while let Some(row) = rows.next()? {
        gone.push(row.get(0)?);
        if row.get(1)? {
            shown.push(row.get(0)?);
        }
    }
    forget(db, project, &gone)?;
    Ok(shown)
}

fn forget(db: &Connection, project: ProjectId, devices: &[String]) -> Result<(), Failure> {
    for device in devices {
        let key = [project.as_str(), device];
        db.prepare_cached("DELETE FROM reported WHERE project = ?1 AND device = ?2")?
            .execute(key)?;
        db.prepare_cached("DELETE FROM devices WHERE project = ?1 AND device = ?2")?
            .execute(key)?;
    }
    Ok(())
}

pub(super) fn list(
    db: &Connection,
    project: ProjectId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<DeviceValues>, Failure> {
    // Ids are never empty, so all of them are behind the empty text.
    let after = after.unwrap_or_default();
    let select = format!(
        "SELECT {COLUMNS} FROM devices WHERE project = ?1 AND ?2 < device AND known ORDER BY device LIMIT ?3"
    );
    let mut select = db.prepare_cached(&select)?;
    let mut rows = select.query(params![project.as_str(), after, bound(limit)])?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        devices.push(with_values(db, project, device(row)?)?);
    }
    Ok(devices)
}

pub(super) fn by_id(
    db: &Connection,
    project: ProjectId,
    ids: &[String],
) -> Result<Vec<DeviceValues>, Failure> {
    let select =
        format!("SELECT {COLUMNS} FROM devices WHERE project = ?1 AND device = ?2 AND known");
    let mut select = db.prepare_cached(&select)?;
    let mut devices = Vec::with_capacity(ids.len());
    for id in ids {
        let found = select.query_row([project.as_str(), id], device).optional()?;
        if let Some(device) = found {
            devices.push(with_values(db, project, device)?);
        }
    }
    Ok(devices)
}

fn with_values(
    db: &Connection,
    project: ProjectId,
    device: Device,
) -> Result<DeviceValues, Failure> {
    let values = reports::values(db, project, &device.device)?;
    Ok(DeviceValues { device, values })
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        device: row.get(0)?,
        named: row.get(1)?,
        about: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        session: row.get(3)?,
        epoch: from_sql(row.get(4)?),
        gateway: row.get(5)?,
        online: row.get(6)?,
        since: row.get(7)?,
        seq: from_sql(row.get(8)?),
        background: row.get(9)?,
        gone: GoneState::named(&row.get::<_, String>(10)?).unwrap_or_default(),
    })
}
