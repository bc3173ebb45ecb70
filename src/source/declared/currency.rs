//! Currencies by ISO 4217.

/// Codes without a minor unit.
const NO_DECIMALS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";

/// Codes whose unit has a thousand minor units.
const THREE_DECIMALS: &str = "BHD IQD JOD KWD LYD OMR TND";

/// Codes whose unit has ten thousand minor units.
const FOUR_DECIMALS: &str = "CLF UYW";

/// All other codes that are in use, whose unit has a hundred minor units.
const TWO_DECIMALS: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP \
    BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD \
    GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK \
    MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD \
    SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES \
    WST XAD XCD XCG YER ZAR ZMW ZWG";

/// Decimals of a currency's minor unit; `None` for an unknown code. The code is in upper case.
pub(super) fn decimals(code: &str) -> Option<i32> {
    let lists = [(NO_DECIMALS, 0), (TWO_DECIMALS, 2), (THREE_DECIMALS, 3), (FOUR_DECIMALS, 4)];
    let is_in = |codes: &str| codes.split_whitespace().any(|known| known == code);
    lists.into_iter().find(|(codes, _)| is_in(codes)).map(|(_, decimals)| decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_has_the_decimals_of_iso_4217() {
        for (code, expected) in [
            ("EUR", Some(2)),
            ("JPY", Some(0)),
            ("KWD", Some(3)),
            ("CLF", Some(4)),
            ("ISK", Some(0)),
            ("eur", None),
            ("EU", None),
            ("XXX", None),
            ("", None),
        ] {
            assert_eq!(decimals(code), expected, "{code}");
        }
    }
}
