use super::*;
use crate::log::{FrameWriter, Origin, Piece};

const SOURCE: Source = Source::FACEBOOK;

fn mark(writer: Uuid, number: u64, events: u64) -> FrameMark {
    FrameMark { writer, number, events }
}

#[test]
fn marks_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.marks");
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut marks = Marks::open(&path);
    for number in [1, 2, 4, 5] {
        marks.take(SOURCE, mark(one, number, 10));
    }
    marks.take(SOURCE, mark(one, 2, 10));
    marks.take(SOURCE, mark(other, 1, 3));
    marks.finish(SOURCE, one, 2);
    marks.finish(SOURCE, other, 1);
    marks.write();
    drop(marks);
    let marks = Marks::open(&path);
    let known = HashMap::from([(one, WriterMark { number: 5, total: 40 })]);
    assert_eq!(marks.acknowledged(SOURCE), known, "a writer whose frames are all done is left out");
    assert!(marks.acknowledged(Source::TIKTOK).is_empty());
    let mut there = Runs::default();
    there.add(4, 4);
    let lost = marks.lost(SOURCE, &HashMap::from([(one, there)]));
    assert_eq!(lost[&one].len(), 2, "1 and 5: {lost:?}");
    assert!(marks.is_done(SOURCE, one, 2) && !marks.is_done(SOURCE, one, 1));
}

#[test]
fn marks_of_declared_sources_are_found_by_their_names_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.marks");
    let writer = Uuid::from_u128(1);
    let long = "a".repeat(32);
    let declare = |name: &str| Source::declare(name, "").unwrap();
    for round in 0..3 {
        let mut marks = Marks::open(&path);
        // In another order each time: numbers are those of the file.
        let mut names = ["first", long.as_str()];
        names.rotate_left(usize::from(round == 1));
        for name in names {
            let events = if name == "first" { 10 } else { 7 };
            marks.take(declare(name), mark(writer, round + 1, events));
        }
        marks.write();
        let of = |name: &str| marks.acknowledged(declare(name))[&writer].total;
        assert_eq!((of("first"), of(&long)), (10 * (round + 1), 7 * (round + 1)));
        assert!(marks.acknowledged(declare("third")).is_empty() && marks.acknowledged(SOURCE).is_empty());
    }
}

#[test]
fn a_damaged_record_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.marks");
    let writer = Uuid::from_u128(1);
    let mut marks = Marks::open(&path);
    for number in 1..=3 {
        marks.take(SOURCE, mark(writer, number, 1));
        marks.write();
    }
    drop(marks);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[MAGIC.len() + RECORD + 30] ^= 1;
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Marks::open(&path).acknowledged(SOURCE)[&writer].number, 1);
    std::fs::write(&path, b"something else").unwrap();
    assert!(Marks::open(&path).acknowledged(SOURCE).is_empty());
}

#[test]
fn the_file_does_not_grow_with_frames_that_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.marks");
    let mut marks = Marks::open(&path);
    let writer = Uuid::from_u128(1);
    for number in 1..=20_000 {
        marks.take(SOURCE, mark(writer, number, 1));
        marks.write();
        marks.finish(SOURCE, writer, number);
        marks.write();
    }
    assert!(std::fs::metadata(&path).unwrap().len() <= MAX_HISTORY + 1_000);
    assert_eq!(marks.acknowledged(SOURCE)[&writer], WriterMark { number: 20_000, total: 20_000 });
}

#[test]
fn events_of_refused_frames_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut marks = Marks::open(&folder.path().join("log.marks"));
    let mut writer = FrameWriter::default();
    let origin = Origin { correlation_id: "a".to_owned(), traceparent: None, accepted_at: 1 };
    let mut frame = |events: usize| {
        let whole = vec![0..2; events];
        writer.write(&[Piece { origin: &origin, body: b"{}", events: &whole }]).1
    };
    let (first, refused, third) = (frame(2), frame(50), frame(3));
    let first = marks.look(SOURCE, &first).unwrap();
    let refused = marks.look(SOURCE, &refused).unwrap();
    let third = marks.look(SOURCE, &third).unwrap();
    assert_eq!((first.events, refused.events, third.events), (2, 50, 3));
    marks.take(SOURCE, first);
    marks.take(SOURCE, third);
    assert_eq!(marks.acknowledged(SOURCE)[&first.writer], WriterMark { number: 3, total: 5 });
    // The events of a frame out of order are counted by reading it.
    let (_, late) = (frame(7), frame(4));
    assert_eq!(marks.look(SOURCE, &late).unwrap().events, 4);
    assert_eq!(marks.look(SOURCE, b"no frame"), None);
}
