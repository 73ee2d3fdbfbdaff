//! The text exposition of metrics, read.

use std::collections::BTreeMap;

/// One line: a name, labels, a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `istio_requests_total`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads a page; lines that are no samples are left out.
    pub fn parse(page: &str) -> Self {
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The samples of a name whose labels include `labels`.
    pub fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        let has = move |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.0.iter().filter(has).collect::<Vec<_>>().into_iter()
    }

    /// The sum of those; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels, and what is behind the closing brace.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_added_up() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"q\\\"}{\"} 3\na_total{x=\"1\"} 4 1700000000\nb 0.5\n# EOF\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("a_total", &[("x", "1")]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("y", "q\"}{")]), 3.0);
        assert_eq!(metrics.sum("b", &[]), 0.5);
        assert_eq!(metrics.sum("c", &[]), 0.0);
    }
}
