//! The dictionary: names of declared sources have one number each, whoever gives it.

use std::collections::BTreeSet;

use ess::event::{FunnelStage, Source, name_of_code};
use ess::source::{FIRST_LEARNT, MAX_WORDS, NewName, WordColumn};
use ess::store::{Purpose, Store};

use crate::support::block_on;
use crate::support::stores::{number, open, stores};

/// Names of types and words, some of which several writers learn at once.
fn names(writer: usize) -> BTreeSet<NewName> {
    let mut names = BTreeSet::new();
    for n in 0..40_usize {
        let shared = if n.is_multiple_of(2) { n } else { n + 100 * (writer + 1) };
        names.insert(NewName::Type(FunnelStage::TOP, format!("type.{shared}")));
        names.insert(NewName::Word(WordColumn::Device, format!("device {shared}")));
        names.insert(NewName::Word(WordColumn::Browser, format!("device {shared}")));
    }
    names
}

#[test]
fn two_stores_that_learn_the_same_names_at_once_give_each_one_number() {
    for (database, url) in stores().urls.iter().enumerate() {
        block_on(async {
            // The process knows numbers for ever, so each database has names of its own.
            let source = Source::declare(&format!("learnt_{database}"), "").unwrap();
            let one = open(url).await;
            if database > 0 {
                // Numbers that no name of the other database has.
                let beyond = "INSERT INTO dictionary (code, kind, source, stage, word)
                    SELECT 5000, 9, 0, 0, 'a kind of a later version'";
                one.execute(beyond).await.unwrap();
            }
            let purpose = Purpose::Write { transactions: 2 };
            let other = Store::connect(url, purpose).await.unwrap();
            for round in 0..5 {
                let (first, second) = (names(2 * round), names(2 * round + 1));
                let learnt = futures::join!(one.learn(source, &first), other.learn(source, &second));
                learnt.0.unwrap();
                learnt.1.unwrap();
                let all = number(&one, "SELECT count(*) FROM dictionary WHERE kind < 9").await;
                // The source, 20 shared names of each kind, and 20 new ones of each writer and kind a round.
                assert_eq!(all, 1 + 3 * 20 + 3 * 2 * 20 * (i64::try_from(round).unwrap() + 1));
            }
            let distinct = "SELECT count(DISTINCT code) FROM dictionary WHERE kind < 9";
            assert_eq!(number(&one, distinct).await, 1 + 3 * 20 + 3 * 2 * 20 * 5);
            let gaps = "SELECT max(code) - min(code) + 1 - count(*) FROM dictionary WHERE kind < 9";
            assert_eq!(number(&one, gaps).await, 0);
            assert!(source.code() >= FIRST_LEARNT);
            let words =
                "SELECT count(*) FROM dictionary d JOIN words w ON w.code = d.code WHERE w.word = d.word";
            assert_eq!(number(&one, words).await, 1 + 3 * 20 + 3 * 2 * 20 * 5);

            // A reader knows all of it by the database alone, and a migration that is run again changes nothing.
            let reader = Store::connect(url, Purpose::Read { connections: 2 }).await.unwrap();
            assert!(reader.read_dictionary().await.unwrap() > 600);
            assert_eq!(name_of_code(source.code()), source.name());
            let known = source.vocabulary();
            assert_eq!(name_of_code(known.get("type.2", FunnelStage::TOP).unwrap().code()), "type.2");
            one.migrate().await.unwrap();
            assert_eq!(number(&one, words).await, 1 + 3 * 20 + 3 * 2 * 20 * 5);
        });
    }
}

#[test]
fn a_column_has_as_many_words_as_the_bound_allows_also_with_two_writers() {
    for (database, url) in stores().urls.iter().enumerate() {
        block_on(async {
            let source = Source::declare(&format!("wordy_{database}"), "").unwrap();
            let one = open(url).await;
            if database > 0 {
                one.execute("INSERT INTO dictionary VALUES (5000, 9, 0, 0, 'x')").await.unwrap();
            }
            let other = Store::connect(url, Purpose::Write { transactions: 2 }).await.unwrap();
            let words = |from: usize| -> BTreeSet<NewName> {
                (from..from + 200).map(|n| NewName::Word(WordColumn::Referrer, format!("word {n}"))).collect()
            };
            let (first, second) = (words(0), words(1_000));
            let learnt = futures::join!(one.learn(source, &first), other.learn(source, &second));
            learnt.0.unwrap();
            learnt.1.unwrap();
            let count = number(&one, "SELECT count(*) FROM dictionary WHERE kind = 6").await;
            assert_eq!(usize::try_from(count).unwrap(), MAX_WORDS);
            assert_eq!(source.vocabulary().word_count(WordColumn::Referrer), MAX_WORDS);
        });
    }
}
