//! The members of the JSON object, and their names.

/// Declares the members of a canonical event with their names.
macro_rules! members {
    ($($(#[$doc:meta])* $member:ident => $name:literal,)+) => {
        /// A member of the JSON object. Those that are optional are absent, never null.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Member {
            $($(#[$doc])* $member),+
        }

        impl Member {
            pub const fn name(self) -> &'static str {
                match self { $(Self::$member => $name),+ }
            }

            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$member),)+ _ => None }
            }
        }
    };
}

members! {
    /// Version of the form.
    Version => "version",
    /// Id of the event.
    Id => "id",
    /// Microseconds since 1970.
    Timestamp => "timestamp",
    /// True if `timestamp` is the arrival; else absent.
    Arrival => "arrival",
    /// Name of the source.
    Source => "source",
    /// Type of the event.
    Type => "type",
    /// Stage of the funnel.
    Stage => "stage",
    /// Id of the user.
    User => "user",
    /// Id of the campaign.
    Campaign => "campaign",
    /// Id of the ad.
    Ad => "ad",
    /// Country.
    Country => "country",
    /// City.
    City => "city",
    /// Device.
    Device => "device",
    /// Browser.
    Browser => "browser",
    /// Age in years.
    Age => "age",
    /// Gender.
    Gender => "gender",
    /// Number of followers.
    Followers => "followers",
    /// Name of the user.
    Name => "name",
    /// Place that led to the event.
    Referrer => "referrer",
    /// Id of the video.
    Video => "video",
    /// Amount in millionths.
    Amount => "amount",
    /// ISO 4217 code.
    Currency => "currency",
    /// True if the amount is revenue; else absent.
    Revenue => "revenue",
    /// The event as it came.
    Raw => "raw",
}
