//! Which kernel modules make up KVM here, and by what means they translate
//! guest-physical addresses, as their parameters in `/sys/module` say.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// How guest-physical addresses become host-physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondLevel {
    /// Intel's extended page tables: the processor walks both levels.
    Ept,
    /// AMD's nested page tables: the processor walks both levels.
    Npt,
    /// KVM merges both levels into one table behind the guest's back.
    Shadow,
}

impl SecondLevel {
    /// In words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Ept => "EPT: the processor walks the guest's tables and KVM's",
            Self::Npt => "NPT: the processor walks the guest's tables and KVM's",
            Self::Shadow => "shadow page tables: KVM merges both levels into one",
        }
    }
}

/// A module and those of its parameters that matter here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Parameters, as `name=value`.
    pub parameters: Vec<String>,
}

/// KVM's modules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// Each module whose name begins with `kvm`, in order.
    pub loaded: Vec<Module>,
    /// What their parameters say about the second level; `None` if there are
    /// no modules to ask.
    pub second_level: Option<SecondLevel>,
}

/// Parameters shown to people, where a module has them.
const SHOWN: [&str; 5] = ["ept", "npt", "tdp_mmu", "nested", "unrestricted_guest"];

impl Modules {
    /// Looks into `folder`, which is `/sys/module` outside tests.
    #[must_use]
    pub fn look(folder: &Path) -> Self {
        let mut names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name == "kvm" || name.starts_with("kvm_"))
            .collect();
        names.sort();
        let parameter = |module: &str, name: &str| {
            let path = folder.join(module).join("parameters").join(name);
            fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
        };
        let is_on = |module: &str, name: &str| {
            parameter(module, name).is_some_and(|value| value == "Y" || value == "1")
        };
        let second_level = if is_on("kvm_intel", "ept") {
            Some(SecondLevel::Ept)
        } else if is_on("kvm_amd", "npt") {
            Some(SecondLevel::Npt)
        } else {
            names.iter().any(|name| name != "kvm").then_some(SecondLevel::Shadow)
        };
        let loaded = names
            .into_iter()
            .map(|name| {
                let shown = |parameter_name: &&str| {
                    let value = parameter(&name, parameter_name)?;
                    Some(format!("{parameter_name}={value}"))
                };
                let parameters = SHOWN.iter().filter_map(shown).collect();
                Module { name, parameters }
            })
            .collect();
        Self { loaded, second_level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(parameters: &[(&str, &str, &str)]) -> Modules {
        let folder = tempfile::tempdir().unwrap();
        for (module, name, value) in parameters {
            let path = folder.path().join(module).join("parameters");
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(name), format!("{value}\n")).unwrap();
        }
        Modules::look(folder.path())
    }

    #[test]
    fn the_second_level_follows_the_parameters() {
        let of = |parameters| look(parameters).second_level;
        assert_eq!(
            of(&[("kvm", "tdp_mmu", "Y"), ("kvm_intel", "ept", "Y")]),
            Some(SecondLevel::Ept)
        );
        assert_eq!(of(&[("kvm_amd", "npt", "1")]), Some(SecondLevel::Npt));
        assert_eq!(of(&[("kvm_amd", "npt", "0")]), Some(SecondLevel::Shadow));
        assert_eq!(of(&[("kvm_other", "stats", "N")]), Some(SecondLevel::Shadow));
        assert_eq!(of(&[("kvm", "tdp_mmu", "Y")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn only_modules_of_kvm_and_parameters_that_matter_are_listed() {
        let modules = look(&[("kvm", "tdp_mmu", "N"), ("kvm", "verbose", "N"), ("loop", "x", "1")]);
        let expected = Module { name: "kvm".into(), parameters: vec!["tdp_mmu=N".into()] };
        assert_eq!(modules.loaded, [expected]);
    }

    #[test]
    fn a_host_without_the_folder_has_no_modules() {
        let modules = Modules::look(Path::new("/nonexistent/module"));
        assert_eq!(modules, Modules { loaded: Vec::new(), second_level: None });
    }
}
